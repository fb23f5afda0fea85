// A request's body through the real validation, and what is taken through the engine.
#include "fuzz_input.h"
#include "fuzz_models.h"
#include "openai/completion_stream.h"
#include "openai/json_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static LoadedModel* const model = LoadTinyModel();
  static Engine* const engine = model->MakeEngine().release();
  FuzzInput in(data, size);
  const Endpoint endpoint = in.Byte() % 2 == 0 ? Endpoint::kChat : Endpoint::kCompletions;
  const auto json = ParseJson(in.Rest());
  if (!json.ok()) {
    CheckMessage(json.error().message);
    return 0;
  }
  ParsedCompletion parsed = ParseCompletion(*model, endpoint, *json, 1'700'000'000);
  if (const auto* error = std::get_if<ApiError>(&parsed); error != nullptr) {
    CheckMessage(error->message);
    CHECK(error->status >= 400 && error->status < 500);
    (void)JsonLine(ToJson(*error));
    return 0;
  }
  const auto& request = std::get<CompletionRequest>(parsed);
  if (request.requests.size() > 8) return 0;  // for speed
  AnswerBuilder answer(&request, &model->tokenizer());
  CompletionStream stream(&request, &model->tokenizer(), {"id", "m", 1});
  std::map<RequestId, size_t> prompts;
  for (size_t i = 0; i < request.requests.size(); ++i) {
    const auto id = engine->Submit(request.requests[i]);
    if (id.ok()) {
      prompts[*id] = i;
    } else {
      CheckMessage(id.error().message);
    }
  }
  const bool all = prompts.size() == request.requests.size();
  std::vector<Event> events;
  for (int step = 0; step < 1000 && engine->Step(&events); ++step) {
  }
  for (Event& e : events) {
    const size_t prompt = prompts.at(e.request);
    (void)stream.Add(prompt, Event(e), 0);
    answer.Add(prompt, std::move(e));
  }
  if (!all) return 0;
  CHECK(answer.done() && stream.done());
  if (answer.error().empty()) (void)JsonLine(answer.Body({"id", "m", 1}));
  return 0;
}
