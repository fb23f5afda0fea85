// Do streams stall while a long prompt is computed? no_stall MODEL PROMPT_TOKENS [TARGET]
// 8 streams decode: answers of 128 tokens, each asked for again when it ends (its prompt is
// cached), so that what they cost stays as it is however long the rest takes. Their quiet ITL is
// measured; then a prompt of PROMPT_TOKENS arrives, with a target of TARGET (1.5) times the quiet
// ITL for each step. Prints the ITL while it is computed and its TTFT against its work divided by
// the share of each step that the target leaves for it.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "api/loaded_model.h"
#include "base/rng.h"

namespace {

using namespace kvasir;

constexpr int32_t kStreams = 8, kStreamPrompt = 64, kAnswer = 128, kQuietSteps = 2 * kAnswer;

std::vector<int32_t> Tokens(const LoadedModel& model, int32_t count, uint64_t seed) {
  const RandomStream stream{seed, 0};
  std::vector<int32_t> out;
  for (int32_t i = 0; i < count; ++i)
    out.push_back(static_cast<int32_t>(stream.Uniform(static_cast<uint64_t>(i)) *
                                       model.tokenizer().vocab_size()));
  return out;
}

Request Ask(std::vector<int32_t> prompt, int32_t max_tokens) {
  Request r{.prompt = std::move(prompt), .max_tokens = max_tokens};
  r.stop.end_of_generation = false;
  r.sampling.ignore_eos = true;
  return r;
}

double Percentile(std::vector<double> v, double percent) {
  std::sort(v.begin(), v.end());
  return v.empty()
             ? 0
             : v[std::min(v.size() - 1,
                          static_cast<size_t>(percent / 100 * static_cast<double>(v.size())))];
}

struct Run {
  std::vector<double> quiet, busy;  // ITL in seconds, of all streams
  double ttft = 0;
};

Run Measure(LoadedModel* model, int32_t prompt, int32_t count, double target_s) {
  const auto engine = model->MakeEngine({.itl_target_s = target_s});
  Run out;
  std::vector<Event> events;
  std::map<RequestId, int64_t> last;
  RequestId long_id = 0;
  int64_t submitted = 0;
  const auto submit = [&](Request r) {
    auto id = engine->Submit(std::move(r));
    if (!id.ok()) {
      std::fprintf(stderr, "%s\n", id.error().message.c_str());
      std::exit(1);
    }
    return *id;
  };
  std::map<RequestId, int32_t> streams;
  const auto ask = [&](int32_t stream, int32_t tokens) {
    const RequestId id = submit(Ask(Tokens(*model, kStreamPrompt, 10 + stream), tokens));
    streams[id] = stream;
    last[id] = 0;
  };
  // The first answers differ in length, so that later ones do not end together.
  for (int32_t i = 0; i < count; ++i) ask(i, kAnswer * (i + 1) / count);
  for (int32_t step = 0; out.ttft == 0; ++step) {
    if (step == (count == 0 ? 0 : kQuietSteps)) {
      submitted = SteadyClock().NowNs();
      long_id = submit(Ask(Tokens(*model, prompt, 1), 1));
    }
    events.clear();
    engine->Step(&events);
    const int64_t now = SteadyClock().NowNs();
    for (const Event& e : events) {
      if (e.request == long_id) {
        if (e.kind == Event::Kind::kToken) out.ttft = SecondsBetween(submitted, now);
        continue;
      }
      if (e.kind == Event::Kind::kFinished) ask(streams.at(e.request), kAnswer);
      if (e.kind != Event::Kind::kToken) continue;
      const int64_t before = std::exchange(last[e.request], now);
      if (before == 0 || step < kAnswer) continue;  // streams differ by then
      (long_id == 0 ? out.quiet : out.busy).push_back(SecondsBetween(before, now));
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: no_stall MODEL PROMPT_TOKENS [TARGET]\n");
    return 2;
  }
  const int32_t prompt = std::atoi(argv[2]);
  const double factor = argc > 3 ? std::atof(argv[3]) : 1.5;
  LoadOptions load;
  load.path = argv[1];
  load.memory = {.context = prompt + 1024, .max_step_tokens = 512, .max_logit_rows = kStreams + 1};
  auto one = LoadedModel::Load(load);
  if (!one.ok()) {
    std::fprintf(stderr, "%s\n", one.error().message.c_str());
    return 1;
  }
  load.memory.kv_bytes = 2 * (*one)->plan().kv_bytes;
  one->reset();
  auto model = std::move(*LoadedModel::Load(load));
  const Run first = Measure(model.get(), 1, kStreams, 0);
  const double quiet = Percentile(first.quiet, 50);
  const double alone = Measure(model.get(), prompt, 0, 0).ttft;
  const double target = factor * quiet;
  const Run run = Measure(model.get(), prompt, kStreams, target);
  const double share = 1 - quiet / target;
  std::printf("quiet ITL p50 %.1f, p99 %.1f ms; target %.1f ms\n", quiet * 1e3,
              Percentile(first.quiet, 99) * 1e3, target * 1e3);
  std::printf(
      "while %d tokens are computed: ITL p50 %.1f, p99 %.1f, most %.1f ms; p99 is %.2f times the "
      "quiet one\n",
      prompt, Percentile(run.busy, 50) * 1e3, Percentile(run.busy, 99) * 1e3,
      Percentile(run.busy, 100) * 1e3, Percentile(run.busy, 99) / quiet);
  std::printf("TTFT %.2f s; alone %.2f s; work / share %.2f s: %.2f times that\n", run.ttft, alone,
              alone / share, run.ttft * share / alone);
  std::printf("without a target: ");
  std::fflush(stdout);
  const Run greedy = Measure(model.get(), prompt, kStreams, 0);
  std::printf("ITL p99 %.1f ms, TTFT %.2f s\n", Percentile(greedy.busy, 99) * 1e3, greedy.ttft);
}
