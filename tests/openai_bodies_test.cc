// Bodies of the OpenAI API: what is taken, what is refused and how; and the offline batch files.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "app/batch_job.h"
#include "openai/completion_answer.h"
#include "openai/completion_stream.h"
#include "openai/json_text.h"
#include "test_model.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

std::unique_ptr<LoadedModel> Tiny() {
  return LoadTestModel(
      KVASIR_SOURCE_DIR "/tests/data/tiny/llama.gguf",
      {.block_tokens = 16, .step_tokens = 32, .logit_rows = 8, .context = 64, .kv_bytes = 1 << 20});
}

Json Chat(const std::string& more = "") {
  return Json::parse(R"({"messages":[{"role":"user","content":"hi"}])" +
                     (more.empty() ? "" : "," + more) + "}");
}
Json Plain(const std::string& more = "") {
  return Json::parse(R"({"prompt":"hi")" + (more.empty() ? "" : "," + more) + "}");
}

class Bodies : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(model_, nullptr); }
  ParsedCompletion Parse(Endpoint endpoint, const Json& body) {
    return ParseCompletion(*model_, endpoint, body, 1'700'000'000);
  }
  CompletionRequest Taken(Endpoint endpoint, const Json& body) {
    ParsedCompletion parsed = Parse(endpoint, body);
    if (const auto* error = std::get_if<ApiError>(&parsed); error != nullptr) {
      ADD_FAILURE() << body.dump() << ": " << error->message;
      return {};
    }
    return std::get<CompletionRequest>(std::move(parsed));
  }
  /// The first choice of the whole answer to the first prompt, from an engine of its own.
  Json FirstChoice(const CompletionRequest& request) { return WholeAnswer(request)["choices"][0]; }
  Json WholeAnswer(const CompletionRequest& request) {
    AnswerBuilder answer(&request, &model_->tokenizer());
    const auto engine = model_->MakeEngine();
    EXPECT_TRUE(engine->Submit(request.requests[0]).ok());
    std::vector<Event> happened;
    while (engine->Step(&happened)) {
    }
    for (Event& e : happened) answer.Add(0, std::move(e));
    return answer.Body({"id", "m", 1});
  }
  std::unique_ptr<LoadedModel> model_ = Tiny();
};

TEST_F(Bodies, EveryFieldArrivesWhereItBelongs) {
  const CompletionRequest r = Taken(Endpoint::kChat, Chat(R"(
      "model":"m","max_tokens":3,"max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"typical_p":0.8,
      "n":2,"seed":-5,"stop":["a","b"],"stop_token_ids":[4],"presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.5,
      "logit_bias":{"7":-100},"logprobs":true,"top_logprobs":3,"min_tokens":2,"ignore_eos":true,"priority":9,"stream":true,
      "stream_options":{"include_usage":true},"return_progress":true,"kvasir_report":true,"timeout_s":2.5,"user":"x","what":1)"));
  ASSERT_EQ(r.requests.size(), 1u);
  const Request& q = r.requests[0];
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(q.max_tokens, 7);
  EXPECT_EQ(q.n, 2);
  EXPECT_FLOAT_EQ(q.sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(q.sampling.top_p, 0.9f);
  EXPECT_EQ(q.sampling.top_k, 5);
  EXPECT_FLOAT_EQ(q.sampling.min_p, 0.1f);
  EXPECT_FLOAT_EQ(q.sampling.typical_p, 0.8f);
  EXPECT_EQ(q.sampling.seed, static_cast<uint64_t>(-5));
  EXPECT_EQ(q.stop.strings, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(q.stop.token_ids, std::vector<int32_t>{4});
  EXPECT_FLOAT_EQ(q.sampling.presence_penalty, 1);
  EXPECT_FLOAT_EQ(q.sampling.frequency_penalty, -1);
  EXPECT_FLOAT_EQ(q.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(q.sampling.logit_bias.at(0), (std::pair<int32_t, float>(7, -100)));
  EXPECT_EQ(q.sampling.logprobs, 3);
  EXPECT_EQ(q.sampling.min_tokens, 2);
  EXPECT_TRUE(q.sampling.ignore_eos);
  EXPECT_EQ(q.priority, -9);  // a body's lowest goes first, the engine's highest
  EXPECT_DOUBLE_EQ(q.deadline_s, 2.5);
  EXPECT_TRUE(r.stream && r.include_usage && r.return_progress && r.report && r.logprobs);
  EXPECT_EQ(r.unknown_fields, std::vector<std::string>{"what"});
}

TEST_F(Bodies, PromptsComeInFourForms) {
  EXPECT_EQ(Taken(Endpoint::kCompletions, Plain()).requests.size(), 1u);
  EXPECT_EQ(Taken(Endpoint::kCompletions, Json::parse(R"({"prompt":["a","b"]})")).requests.size(),
            2u);
  EXPECT_EQ(Taken(Endpoint::kCompletions, Json::parse(R"({"prompt":[5,6,7]})")).requests[0].prompt,
            (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(
      Taken(Endpoint::kCompletions, Json::parse(R"({"prompt":[[5],[6,7]]})")).requests[1].prompt,
      (std::vector<int32_t>{6, 7}));
}

TEST_F(Bodies, WhatIsCopiedForEachPromptIsCheckedBeforeAnyIsRead) {
  // The wrong token is never come to: what is said is what stands before it.
  const auto refused = [&](Json body, const std::string& param) {
    body["prompt"] = Json::array();
    for (int i = 0; i < 500; ++i) body["prompt"].push_back(Json::array({1'000'000}));
    const ParsedCompletion parsed = Parse(Endpoint::kCompletions, body);
    const auto* error = std::get_if<ApiError>(&parsed);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, param) << error->message;
    EXPECT_NE(error->message.find(param), std::string::npos) << error->message;
    EXPECT_EQ(error->message.find("vocabulary"), std::string::npos) << error->message;
  };
  refused({{"stop", std::string(500'000, 'x')}}, "stop");
  refused({{"stop", ""}}, "stop");
  refused({{"stop_token_ids", std::vector<int>(2000, 4)}}, "stop_token_ids");
  Json bias = Json::object();
  for (int i = 0; i < 1025; ++i) bias[std::to_string(i)] = 1;
  refused({{"logit_bias", bias}}, "logit_bias");
  refused({{"logit_bias", {{"1", 101}}}}, "logit_bias");
  refused({{"n", 3}}, "prompt");
  refused({{"beam_width", 3}}, "prompt");
}

TEST_F(Bodies, ChoicesOfAllPromptsTogetherAreBounded) {
  const auto body = [](size_t prompts, int n) {
    return Json{{"prompt", std::vector<std::string>(prompts, "a")}, {"n", n}};
  };
  EXPECT_EQ(Taken(Endpoint::kCompletions, body(8, 128)).requests.size(), 8u);
  for (const auto& [prompts, n] : {std::pair(size_t{9}, 128), {size_t{1025}, 1}}) {
    const ParsedCompletion parsed = Parse(Endpoint::kCompletions, body(prompts, n));
    const auto* error = std::get_if<ApiError>(&parsed);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->param, "prompt");
    EXPECT_NE(error->message.find("1024 choices"), std::string::npos) << error->message;
  }
  // A list of token ids is one prompt, however long.
  EXPECT_EQ(Taken(Endpoint::kCompletions, Json{{"prompt", std::vector<int>(3000, 5)}, {"n", 128}})
                .requests.size(),
            1u);
}

TEST_F(Bodies, ContentPartsAndNullsAndDevelopersAreUnderstood) {
  const auto plain = Taken(
      Endpoint::kChat,
      Json::parse(
          R"({"messages":[{"role":"system","content":"a\nb"}],"stop":null,"tools":[],"tool_choice":"none","response_format":{"type":"text"}})"));
  const auto parts = Taken(
      Endpoint::kChat,
      Json::parse(
          R"({"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})"));
  EXPECT_EQ(plain.requests.at(0).prompt, parts.requests.at(0).prompt);
  // Without a seed each request has its own.
  EXPECT_NE(plain.requests[0].sampling.seed, parts.requests[0].sampling.seed);
}

TEST_F(Bodies, WhatWouldBindTheAnswerIsRefusedAndNotIgnored) {
  const std::pair<const char*, Json> fields[] = {
      {"guided_json", Json::object()},
      {"guided_regex", "a+"},
      {"guided_choice", {"a", "b"}},
      {"guided_grammar", "root ::= a"},
      {"structured_outputs", {{"choice", {"a", "b"}}}},
      {"grammar", "root ::= a"},
      {"json_schema", Json::object()},
      {"continue_final_message", true},
      {"allowed_token_ids", {5}},
      {"bad_words", {"a"}},
      {"chat_template", "{{ messages }}"},
      {"function_call", "auto"},
      {"functions", Json::array()},
  };
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    for (const auto& [field, value] : fields) {
      Json body = endpoint == Endpoint::kChat ? Chat() : Plain();
      body[field] = value;
      const ParsedCompletion parsed = Parse(endpoint, body);
      const auto* error = std::get_if<ApiError>(&parsed);
      ASSERT_NE(error, nullptr) << field;
      EXPECT_EQ(error->status, 400);
      EXPECT_EQ(error->param, field);
      EXPECT_NE(error->message.find("leave"), std::string::npos) << error->message;
      body[field] = nullptr;
      EXPECT_TRUE(Taken(endpoint, body).unknown_fields.empty());
    }
  }
  Taken(Endpoint::kChat, Chat(R"("continue_final_message":false,"function_call":"none",
                                 "bad_words":[],"grammar":"")"));
}

TEST_F(Bodies, BeamSearchIsAskedForInOneWayAndWhatItForbidsIsNamed) {
  const auto refused = [&](Endpoint endpoint, const std::string& more, const std::string& param) {
    const Json body = endpoint == Endpoint::kChat ? Chat(more) : Plain(more);
    const ParsedCompletion parsed = Parse(endpoint, body);
    const auto* error = std::get_if<ApiError>(&parsed);
    ASSERT_NE(error, nullptr) << more;
    EXPECT_EQ(error->param, param) << error->message;
    EXPECT_NE(error->message.find(param), std::string::npos) << error->message;
  };
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    refused(endpoint, R"("use_beam_search":false,"beam_width":2)", "beam_width");
    for (const auto& [field, value] : {std::pair{"temperature", "0.7"},
                                       {"top_k", "5"},
                                       {"top_p", "0.9"},
                                       {"min_p", "0.1"},
                                       {"typical_p", "0.9"},
                                       {"repetition_penalty", "1.1"},
                                       {"frequency_penalty", "1"},
                                       {"presence_penalty", "1"},
                                       {"logit_bias", R"({"5":1})"},
                                       {"min_tokens", "1"},
                                       {"stop", R"("a")"}})
      refused(endpoint, fmt::format(R"("beam_width":2,"{}":{})", field, value), field);
    for (const char* temperature : {"0", "1", "null"}) {
      const auto more = fmt::format(R"("beam_width":2,"temperature":{})", temperature);
      const CompletionRequest r =
          Taken(endpoint, endpoint == Endpoint::kChat ? Chat(more) : Plain(more));
      EXPECT_EQ(r.requests.at(0).sampling.temperature, 0);
    }
  }
  refused(Endpoint::kChat, R"("beam_width":2,"logprobs":true,"top_logprobs":1)", "top_logprobs");
  refused(Endpoint::kCompletions, R"("beam_width":2,"logprobs":1)", "logprobs");
  refused(Endpoint::kCompletions, R"("beam_width":4,"n":2,"best_of":3)", "best_of");
  for (const char* best_of : {"2", "4", "null"})
    Taken(Endpoint::kCompletions,
          Plain(fmt::format(R"("beam_width":4,"n":2,"best_of":{})", best_of)));
}

TEST_F(Bodies, MinusOneTokensAreNoLimit) {
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    const auto limit = [&](const std::string& more) {
      return Taken(endpoint, endpoint == Endpoint::kChat ? Chat(more) : Plain(more))
          .requests.at(0)
          .max_tokens;
    };
    EXPECT_EQ(limit(R"("max_tokens":-1)"), -1);
    EXPECT_EQ(limit(R"("max_tokens":null)"), endpoint == Endpoint::kChat ? -1 : 16);
    const Json body =
        endpoint == Endpoint::kChat ? Chat(R"("max_tokens":-2)") : Plain(R"("max_tokens":-2)");
    const ParsedCompletion parsed = Parse(endpoint, body);
    EXPECT_TRUE(std::holds_alternative<ApiError>(parsed));
  }
}

TEST_F(Bodies, LlamaServersNameOfARepetitionPenaltyIsKnown) {
  const CompletionRequest r = Taken(Endpoint::kChat, Chat(R"("repeat_penalty":1.25)"));
  EXPECT_FLOAT_EQ(r.requests.at(0).sampling.repetition_penalty, 1.25f);
  EXPECT_TRUE(r.unknown_fields.empty());
}

TEST_F(Bodies, AWrongFieldIsNamed) {
  const std::pair<const char*, const char*> common[] = {
      {R"("n":0)", "n"},
      {R"("n":"2")", "n"},
      {R"("n":1.5)", "n"},
      {R"("n":18446744073709551615)", "n"},
      {R"("temperature":-1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("top_p":2)", "top_p"},
      {R"("seed":1.5)", "seed"},
      {R"("stop":5)", "stop"},
      {R"("stop":["a",5])", "stop"},
      {R"("stop_token_ids":"a")", "stop_token_ids"},
      {R"("stop_token_ids":[4294967296])", "stop_token_ids"},
      {R"("logit_bias":[1])", "logit_bias"},
      {R"("logit_bias":{"a":1})", "logit_bias"},
      {R"("logit_bias":{"5":1,"05":2})", "logit_bias"},
      {R"("user":5)", "user"},
      {R"("metadata":"a")", "metadata"},
      {R"("store":"yes")", "store"},
      {R"("service_tier":1)", "service_tier"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":2147483648)", "max_tokens"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("tools":[{}])", "tools"},
      {R"("tool_choice":"auto")", "tool_choice"},
      {R"("cache_salt":"x")", "cache_salt"},
      {R"("priority":101)", "priority"},
      {R"("model":5)", "model"},
  };
  const auto check = [&](Endpoint endpoint, const Json& body, const std::string& param) {
    const ParsedCompletion parsed = Parse(endpoint, body);
    const auto* error = std::get_if<ApiError>(&parsed);
    ASSERT_NE(error, nullptr) << body.dump();
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, param) << body.dump();
    EXPECT_NE(error->message.find(param), std::string::npos) << error->message;
  };
  for (const auto& [more, param] : common) {
    check(Endpoint::kChat, Chat(more), param);
    check(Endpoint::kCompletions, Plain(more), param);
  }
  check(Endpoint::kChat, Json::parse("{}"), "messages");
  check(Endpoint::kChat, Json::parse(R"({"messages":[]})"), "messages");
  check(Endpoint::kChat, Json::parse(R"({"messages":["x"]})"), "messages[0]");
  check(Endpoint::kChat, Json::parse(R"({"messages":[{"role":"user","content":5}]})"),
        "messages[0].content");
  check(Endpoint::kChat,
        Json::parse(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
        "messages[0].content");
  check(Endpoint::kChat, Chat(R"("top_logprobs":2)"), "top_logprobs");
  check(Endpoint::kChat, Chat(R"("chat_template_kwargs":5)"), "chat_template_kwargs");
  check(Endpoint::kCompletions, Json::parse("{}"), "prompt");
  check(Endpoint::kCompletions, Json::parse(R"({"prompt":[[1],["a"]]})"), "prompt");
  check(Endpoint::kCompletions, Json::parse(R"({"prompt":[100000]})"), "prompt");
  check(Endpoint::kCompletions, Plain(R"("best_of":3)"), "best_of");
  check(Endpoint::kCompletions, Plain(R"("suffix":"x")"), "suffix");
  const ParsedCompletion list = Parse(Endpoint::kChat, Json::parse("[]"));
  EXPECT_TRUE(std::holds_alternative<ApiError>(list));
}

/// Choices as a client puts them together from the server-sent events of a stream.
Json Reassemble(const std::string& events, bool chat) {
  Json choices = Json::array();
  bool done = false;
  for (size_t at = 0; at < events.size();) {
    const size_t end = events.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    const std::string data = events.substr(at + 6, end - at - 6);
    EXPECT_EQ(events.substr(at, 6), "data: ");
    at = end + 2;
    EXPECT_FALSE(done) << "something came after [DONE]";
    done = data == "[DONE]";
    if (done) continue;
    const Json chunk = Json::parse(data);
    for (const Json& choice : chunk["choices"]) {
      const size_t index = choice["index"];
      while (choices.size() <= index)
        choices.push_back({{"text", ""}, {"logprobs", nullptr}, {"finish_reason", nullptr}});
      Json& to = choices[index];
      EXPECT_TRUE(to["finish_reason"].is_null()) << "a choice went on after its end";
      const Json text = chat ? choice["delta"].value("content", Json()) : choice["text"];
      if (text.is_string()) to["text"] = to["text"].get<std::string>() + text.get<std::string>();
      if (choice["logprobs"].is_object()) {
        for (const auto& [list, values] : choice["logprobs"].items()) {
          for (const Json& v : values) to["logprobs"][list].push_back(v);
        }
      }
      to["finish_reason"] = choice["finish_reason"];
    }
  }
  EXPECT_TRUE(done);
  return choices;
}

TEST_F(Bodies, AStreamPutTogetherIsTheWholeAnswer) {
  const auto engine = model_->MakeEngine();
  // Whatever letter a text ends with could have begun a stop string, and was held back.
  std::string stops = "\" ~\"";
  for (char c = 'A'; c <= 'Z'; ++c) stops += fmt::format(",\"{}~\",\"{}~\"", c, char(c + 32));
  const std::pair<Endpoint, Json> bodies[] = {
      {Endpoint::kChat, Chat(R"("max_tokens":9,"n":3,"seed":1)")},
      {Endpoint::kChat, Chat(R"("max_tokens":9,"logprobs":true,"top_logprobs":2,"seed":2)")},
      {Endpoint::kChat, Chat(R"("max_tokens":20,"stop":["e","t"],"seed":3,"n":2)")},
      {Endpoint::kCompletions, Plain(R"("max_tokens":9,"logprobs":2,"echo":true,"n":2,"seed":4)")},
      {Endpoint::kCompletions,
       Plain(R"("max_tokens":9,"logprobs":3,"n":2,"seed":6,"temperature":100)")},
      {Endpoint::kCompletions,
       Json::parse(
           R"({"prompt":"größe 东 🙂","max_tokens":30,"logprobs":1,"echo":true,"seed":7,"temperature":100})")},
      {Endpoint::kCompletions,
       Json::parse(R"({"prompt":["a","b c"],"echo":true,"max_tokens":3,"n":2,"seed":5})")},
      {Endpoint::kCompletions, Plain(R"("max_tokens":9,"use_beam_search":true,"n":2)")},
      {Endpoint::kChat, Chat(R"("max_tokens":9,"n":8,"seed":8,"stop":[)" + stops + "]")},
  };
  for (const auto& [endpoint, body] : bodies) {
    CompletionRequest request = Taken(endpoint, body);
    request.stream = request.include_usage = true;
    const bool chat = endpoint == Endpoint::kChat;
    AnswerBuilder answer(&request, &model_->tokenizer());
    CompletionStream stream(&request, &model_->tokenizer(), {"id", "m", 1});
    std::map<RequestId, size_t> prompts;
    for (size_t i = 0; i < request.requests.size(); ++i) {
      const auto id = engine->Submit(request.requests[i]);
      ASSERT_TRUE(id.ok()) << id.error().message;
      prompts[*id] = i;
    }
    std::string events = stream.Begin();
    std::vector<Event> happened;
    while (engine->Step(&happened)) {
    }
    for (Event& e : happened) {
      const size_t prompt = prompts.at(e.request);
      events += stream.Add(prompt, Event(e), 5);
      answer.Add(prompt, std::move(e));
    }
    ASSERT_TRUE(answer.done() && stream.done());
    const Json whole = answer.Body({"id", "m", 1});
    const Json parts = Reassemble(events, chat);
    ASSERT_EQ(parts.size(), whole["choices"].size());
    for (size_t i = 0; i < parts.size(); ++i) {
      const Json& choice = whole["choices"][i];
      EXPECT_EQ(parts[i]["text"], chat ? choice["message"]["content"] : choice["text"])
          << body.dump();
      EXPECT_EQ(parts[i]["finish_reason"], choice["finish_reason"]);
      EXPECT_EQ(parts[i]["logprobs"], choice["logprobs"]);
    }
    EXPECT_NE(events.find(JsonLine(whole["usage"])), std::string::npos) << events;
  }
}

/// The chunks of a stream of the first prompt's events, from an engine of its own.
std::vector<Json> ChunksOf(LoadedModel& model, const CompletionRequest& request) {
  CompletionStream stream(&request, &model.tokenizer(), {"id", "m", 1});
  std::string events = stream.Begin();
  const auto engine = model.MakeEngine();
  EXPECT_TRUE(engine->Submit(request.requests[0]).ok());
  std::vector<Event> happened;
  while (engine->Step(&happened)) {
  }
  for (Event& e : happened) events += stream.Add(0, std::move(e), 5);
  std::vector<Json> chunks;
  for (size_t at = 0; at < events.size();) {
    const size_t end = events.find("\n\n", at);
    const std::string data = events.substr(at + 6, end - at - 6);
    at = end + 2;
    if (data != "[DONE]") chunks.push_back(Json::parse(data));
  }
  return chunks;
}

TEST_F(Bodies, AStreamEndsWithItsTimingsAlsoWithoutUsage) {
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    for (const bool usage : {false, true}) {
      const char* more =
          R"("stream":true,"max_tokens":4,"n":2,"ignore_eos":true,"kvasir_report":true)";
      CompletionRequest request =
          Taken(endpoint, endpoint == Endpoint::kChat ? Chat(more) : Plain(more));
      request.include_usage = usage;
      std::vector<Json> chunks = ChunksOf(*model_, request);
      ASSERT_FALSE(chunks.empty());
      const Json last = chunks.back();
      chunks.pop_back();
      EXPECT_EQ(last["choices"].size(), usage ? 0u : 1u);
      EXPECT_EQ(last["timings"]["predicted_n"], 8);
      EXPECT_EQ(last.contains("usage"), usage);
      const Json& report = usage ? last["usage"]["kvasir"] : last["kvasir"];
      EXPECT_TRUE(report["seconds"].contains("prefill")) << last;
      for (const Json& chunk : chunks) EXPECT_FALSE(chunk.contains("timings")) << chunk;
    }
  }
  const std::vector<Json> plain =
      ChunksOf(*model_, Taken(Endpoint::kChat, Chat(R"("stream":true,"max_tokens":2)")));
  EXPECT_FALSE(plain.back().contains("kvasir")) << "nobody asked for it";
}

TEST(ReportJson, OnlyAnOperatorIsToldOfOthersAndNeverTheirText) {
  const auto model = Tiny();
  RequestStats stats;
  const auto report = [&](const TenantNames* names) {
    return ReportJson(stats, 1, names, model->tokenizer())["cache"];
  };
  const TenantNames names = {{1, "ops"}, {2, "bob"}};
  stats.cache = {.reason = MissReason::kEvicted, .evicted_steps_ago = 7, .evicted_for = 2};
  EXPECT_EQ(report(&names)["evicted_for"], "bob");
  EXPECT_FALSE(report(nullptr).contains("evicted_for"));
  stats.cache = {.reason = MissReason::kDiverged, .diverged_had = 70, .diverged_tenant = 2};
  EXPECT_EQ(report(&names)["diverged_from"], "bob");
  EXPECT_TRUE(report(&names)["cached_had"].is_null());
  EXPECT_FALSE(report(nullptr).contains("diverged_from"));
  stats.cache.diverged_tenant = 3;
  EXPECT_EQ(report(&names)["diverged_from"], "?") << "its key is gone";
}

TEST_F(Bodies, APromptAloneIsScoredWithoutAnyOutput) {
  const char* more = R"("max_tokens":0,"echo":true,"logprobs":1,"n":2,"ignore_eos":true)";
  CompletionRequest request = Taken(Endpoint::kCompletions, Plain(more));
  const Json whole = WholeAnswer(request);
  const size_t tokens = request.requests[0].prompt.size();
  EXPECT_EQ(whole["usage"]["completion_tokens"], 0);
  EXPECT_EQ(whole["usage"]["total_tokens"], tokens);
  EXPECT_EQ(whole["timings"]["predicted_n"], 0);
  ASSERT_EQ(whole["choices"].size(), 2u);
  for (const Json& choice : whole["choices"]) {
    EXPECT_EQ(choice["text"], "hi");
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(choice["logprobs"]["tokens"].size(), tokens);
  }
  // The same log probabilities as where something is written after the prompt.
  const Json longer = FirstChoice(
      Taken(Endpoint::kCompletions, Plain(R"("max_tokens":3,"echo":true,"logprobs":1)")));
  for (size_t i = 0; i < tokens; ++i)
    EXPECT_EQ(whole["choices"][0]["logprobs"]["token_logprobs"][i],
              longer["logprobs"]["token_logprobs"][i]);
  std::string text;
  size_t scored = 0;
  for (const Json& chunk : ChunksOf(*model_, request)) {
    for (const Json& choice : chunk["choices"]) {
      text += choice["text"].get<std::string>();
      if (choice["logprobs"].is_object()) scored += choice["logprobs"]["tokens"].size();
    }
  }
  EXPECT_EQ(text, "hihi");
  EXPECT_EQ(scored, 2 * tokens);
}

/// The characters of a text.
std::vector<std::string> Characters(const std::string& text) {
  std::vector<std::string> out;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) out.emplace_back();
    out.back() += c;
  }
  return out;
}

TEST_F(Bodies, AnOffsetIsThatOfTheCharacterInWhichTheTokenBegins) {
  const Tokenizer& tokenizer = model_->tokenizer();
  const auto byte = [&](const std::string& bytes) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (tokenizer.TokenBytes(id, true) == bytes) return id;
    }
    ADD_FAILURE() << "there is no token " << bytes;
    return 0;
  };
  // "a", "€" in three parts, two of them that another character follows, and one at the end, which
  // is not in the text.
  std::vector<int32_t> prompt;
  for (const char* b : {"a", "\xe2", "\x82", "\xac", "b", "\xe2", "\x82", "c", "\xe2"})
    prompt.push_back(byte(b));
  const std::vector<size_t> offsets = {0, 1, 1, 1, 2, 3, 3, 4, 5};
  CompletionRequest request = Taken(Endpoint::kCompletions, Json{{"prompt", prompt},
                                                                 {"echo", true},
                                                                 {"logprobs", 0},
                                                                 {"max_tokens", 40},
                                                                 {"seed", 3},
                                                                 {"temperature", 100},
                                                                 {"ignore_eos", true}});
  const Json choice = FirstChoice(request);
  const std::vector<std::string> text = Characters(choice["text"]);
  const Json& list = choice["logprobs"];
  EXPECT_EQ(list["tokens"][2], "bytes:\\x82");
  ASSERT_EQ(list["tokens"].size(), prompt.size() + 40);
  for (size_t i = 0; i < list["tokens"].size(); ++i) {
    const auto at = list["text_offset"][i].get<size_t>();
    const auto name = list["tokens"][i].get<std::string>();
    if (i < offsets.size()) {
      EXPECT_EQ(at, offsets[i]) << i;
    }
    const Json& top = list["top_logprobs"][i];
    EXPECT_TRUE(i == 0 || top.contains(name)) << "the chosen one is missing";
    if (name.starts_with("bytes:")) continue;
    // Control tokens are named and have no text.
    if (tokenizer.TokenBytes(byte(name), false).empty()) continue;
    std::string there;
    for (size_t j = at; j < std::min(text.size(), at + Characters(name).size()); ++j)
      there += text[j];
    EXPECT_EQ(there, name) << i;
  }
}

TEST_F(Bodies, ACharacterThatTheLengthCutsIsNotInTheTextAndItsTokensKeepTheirLogProbabilities) {
  const Tokenizer& tokenizer = model_->tokenizer();
  const auto wanted = [&](const std::string& bytes) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (tokenizer.TokenBytes(id, true) == bytes) return std::to_string(id);
    }
    return std::string();
  };
  // Nothing but the first byte of a character comes: a new one after each.
  const Json choice =
      FirstChoice(Taken(Endpoint::kCompletions, Json{{"prompt", "a"},
                                                     {"logit_bias", {{wanted("\xf0"), 100}}},
                                                     {"logprobs", 0},
                                                     {"max_tokens", 3},
                                                     {"temperature", 0}}));
  EXPECT_EQ(choice["text"], "\uFFFD\uFFFD");
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json({0, 1, 2}));
  // So it is in a prompt that is told again.
  EXPECT_EQ(EchoText(tokenizer, {std::stoi(wanted("b")), std::stoi(wanted("\xf0"))}, true), "b");
}

TEST_F(Bodies, LogProbabilitiesOfAPromptAreInTheAnswerOrRefused) {
  for (const bool echo : {false, true}) {
    const Json body = {
        {"prompt", "some text"}, {"prompt_logprobs", 1}, {"echo", echo}, {"max_tokens", 2}};
    CompletionRequest request = Taken(Endpoint::kCompletions, body);
    const Json choice = FirstChoice(request);
    ASSERT_TRUE(choice.contains("prompt_logprobs"));
    EXPECT_EQ(choice["prompt_logprobs"].size(), request.requests[0].prompt.size());
  }
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    const char* more = R"("stream":true,"prompt_logprobs":1)";
    const ParsedCompletion parsed =
        Parse(endpoint, endpoint == Endpoint::kChat ? Chat(more) : Plain(more));
    const auto* error = std::get_if<ApiError>(&parsed);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->param, "prompt_logprobs");
  }
}

class BatchFiles : public Bodies {
 protected:
  void SetUp() override {
    Bodies::SetUp();
    folder_ = std::filesystem::temp_directory_path() / ("kvasir-batch-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    in_ = folder_ / "in.jsonl";
    out_ = folder_ / "out.jsonl";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  Result<BatchSummary> Run() {
    return RunBatch(model_.get(), in_, out_, "tiny", [](size_t, size_t) {});
  }
  std::map<std::string, Json> Answers() const {
    std::map<std::string, Json> answers;
    std::ifstream in(out_);
    for (std::string line; std::getline(in, line);) {
      const Json json = Json::parse(line);
      EXPECT_TRUE(answers.emplace(json["custom_id"], json["response"]).second)
          << "answered twice: " << line;
    }
    return answers;
  }
  std::filesystem::path folder_;
  std::string in_, out_;
};

TEST_F(BatchFiles, EveryLineIsAnsweredOnceAlsoAfterARunThatWasKilled) {
  std::string in;
  for (int i = 0; i < 30; ++i) {
    const Json line = {{"custom_id", fmt::format("r{}", i)},
                       {"method", "POST"},
                       {"url", "/v1/completions"},
                       {"body",
                        {{"prompt", fmt::format("{} of them all {}", i % 3, i)},
                         {"max_tokens", 4 + i % 5},
                         {"temperature", 0}}}};
    in += line.dump() + "\n";
  }
  in += R"({"custom_id":"bad","url":"/v1/completions","body":{"prompt":5}})"
        "\n";
  in += R"({"custom_id":"long","url":"/v1/completions","body":{"prompt":")" +
        std::string(500, 'x') + "\"}}\n";
  in += R"({"custom_id":"url5","url":5,"body":{}})"
        "\n";
  in += R"({"custom_id":"url","url":"/v1/embeddings","body":{}})"
        "\n\n";
  Write(in_, in);
  const auto first = Run();
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->requests, 34u);
  EXPECT_EQ(first->failed, 4u);
  const auto all = Answers();
  ASSERT_EQ(all.size(), 34u);
  EXPECT_EQ(all.at("bad")["status_code"], 400);
  EXPECT_EQ(all.at("long")["status_code"], 400);
  EXPECT_EQ(all.at("url")["body"]["error"]["param"], "url");
  EXPECT_EQ(all.at("r3")["body"]["usage"]["completion_tokens"], 7);

  // Cut anywhere, it is completed, with the same texts.
  std::ifstream whole(out_, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(whole)), {});
  for (const size_t cut : {size_t{0}, size_t{10}, text.size() / 3, text.size() - 1}) {
    Write(out_, text.substr(0, cut));
    const auto again = Run();
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(again->requests + again->skipped, 34u);
    const auto answers = Answers();
    ASSERT_EQ(answers.size(), 34u);
    for (const auto& [id, answer] : all) {
      if (answer["status_code"] != 200) continue;
      EXPECT_EQ(answers.at(id)["body"]["choices"], answer["body"]["choices"]) << id;
    }
  }
}

TEST_F(BatchFiles, AnotherModelOrMethodIsAnsweredAsByAServer) {
  const auto line = [](const std::string& id, const Json& more, const Json& body) {
    Json out = {{"custom_id", id}, {"url", "/v1/completions"}, {"body", {{"prompt", "a"}}}};
    out.update(more);
    out["body"].update(body);
    return out.dump() + "\n";
  };
  Write(in_, line("mine", Json::object(), {{"model", "tiny"}, {"max_tokens", 1}}) +
                 line("other", Json::object(), {{"model", "large"}}) +
                 line("get", {{"method", "GET"}}, Json::object()));
  ASSERT_TRUE(Run().ok());
  const auto answers = Answers();
  EXPECT_EQ(answers.at("mine")["status_code"], 200);
  EXPECT_EQ(answers.at("other")["status_code"], 404);
  EXPECT_EQ(answers.at("other")["body"]["error"]["code"], "model_not_found");
  EXPECT_EQ(answers.at("get")["status_code"], 400);
  EXPECT_EQ(answers.at("get")["body"]["error"]["param"], "method");
  EXPECT_EQ(Run()->skipped, 3u) << "an error is an answer";
}

TEST_F(BatchFiles, AFileThatIsNoneIsRefusedWithTheLine) {
  const auto message = [&](const std::string& text) {
    Write(in_, text);
    const auto result = Run();
    return result.ok() ? std::string("taken") : result.error().message;
  };
  EXPECT_NE(message("{}\n").find("in.jsonl:1"), std::string::npos);
  EXPECT_NE(message("\n\nnonsense\n").find("in.jsonl:3"), std::string::npos);
  EXPECT_NE(message("{\"custom_id\":\"a\"}\n{\"custom_id\":\"a\"}\n").find("in.jsonl:2"),
            std::string::npos);
  EXPECT_NE(message(std::string(100000, '[') + "\n").find("deeper"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(BatchFiles, WhatIsNoFileOfAnswersIsLeftAsItIs) {
  const std::string request = R"({"custom_id":"a","method":"POST","url":"/v1/completions"})";
  Write(in_, request + "\n");
  ASSERT_TRUE(Run().ok());
  std::ifstream answers(out_, std::ios::binary);
  const std::string answer((std::istreambuf_iterator<char>(answers)), {});
  for (const std::string& text :
       {std::string("a text of mine\nand more\n"), std::string("without a newline"),
        std::string("{\"half\": "), request + "\n", request, answer + "and more"}) {
    Write(out_, text);
    const auto kept = Run();
    ASSERT_FALSE(kept.ok()) << text;
    EXPECT_NE(kept.error().message.find("out.jsonl is not a file of batch answers; name another"),
              std::string::npos);
    std::ifstream file(out_, std::ios::binary);
    EXPECT_EQ(std::string((std::istreambuf_iterator<char>(file)), {}), text);
  }
}

TEST_F(BatchFiles, TwoRunsDoNotWriteToOneFile) {
  Write(in_, R"({"custom_id":"a","url":"/v1/completions"})"
             "\n");
  const int other = open(out_.c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  const auto busy = Run();
  ASSERT_FALSE(busy.ok());
  EXPECT_NE(busy.error().message.find("another run writes its answers to " + out_),
            std::string::npos);
  close(other);
  EXPECT_TRUE(Run().ok());
}

}  // namespace
}  // namespace kvasir
