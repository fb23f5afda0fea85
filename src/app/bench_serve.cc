#include "app/bench_serve.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <ctime>

#include "app/json_output.h"
#include "app/output_file.h"
#include "app/terminal.h"
#include "loadgen/load_client.h"
#include "loadgen/load_run.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

struct BenchServeFlags {
  LoadgenOptions load;
  std::string endpoint = "chat", trace, plot, save;
  std::vector<double> rates;
  std::vector<std::string> goodput;
  int64_t trace_requests = 0;
  bool keep_eos = false, json = false;
};

Result<GoodputLimits> ParseGoodput(const std::vector<std::string>& list) {
  GoodputLimits out;
  for (const std::string& text : list) {
    const size_t colon = text.find(':');
    double ms = 0;
    const char* end = text.data() + text.size();
    const bool number = colon != std::string::npos &&
                        std::from_chars(text.data() + colon + 1, end, ms).ptr == end && ms > 0;
    const std::string name = text.substr(0, std::min(colon, text.size()));
    double* field = name == "ttft"   ? &out.ttft_s
                    : name == "itl"  ? &out.itl_s
                    : name == "tpot" ? &out.tpot_s
                    : name == "e2el" ? &out.e2el_s
                                     : nullptr;
    if (field == nullptr || !number) {
      return FlagError("--goodput is \"{}\"; write ttft:MS, itl:MS, tpot:MS or e2el:MS", text);
    }
    *field = ms * 1e-3;
  }
  return out;
}

Status Check(const BenchServeFlags& f) {
  const LoadgenOptions& o = f.load;
  const auto wrong = [](const char* name, auto value, auto least, auto most) {
    return FlagError("{} is {}; it must be from {} to {}", name, value, least, most);
  };
  if (f.endpoint != "chat" && f.endpoint != "completions")
    return FlagError("--endpoint is \"{}\"; use chat or completions", f.endpoint);
  if (o.requests < 1 || o.requests > 10'000'000)
    return wrong("--requests", o.requests, 1, 10'000'000);
  if (o.concurrency < 0 || o.concurrency > 10'000)
    return wrong("--concurrency", o.concurrency, 1, 10'000);
  if (o.turns < 1 || o.turns > 1000) return wrong("--turns", o.turns, 1, 1000);
  if (o.prompt_tokens < 1 || o.prompt_tokens > 10'000'000)
    return wrong("--prompt-tokens", o.prompt_tokens, 1, 10'000'000);
  if (o.shared_tokens < 0 || o.shared_tokens > 10'000'000)
    return wrong("--shared-tokens", o.shared_tokens, 0, 10'000'000);
  if (o.output_tokens < 1 || o.output_tokens > 10'000'000)
    return wrong("--output-tokens", o.output_tokens, 1, 10'000'000);
  if (!(o.burstiness >= 0.01 && o.burstiness <= 1000))
    return wrong("--burstiness", o.burstiness, 0.01, 1000);
  if (!(o.speedup >= 1e-6 && o.speedup <= 1e6)) return wrong("--speedup", o.speedup, 1e-6, 1e6);
  if (!(o.timeout_s >= 0.001 && o.timeout_s <= 1e6))
    return wrong("--timeout", o.timeout_s, 0.001, 1'000'000);
  for (const double rate : f.rates) {
    if (std::isinf(rate)) {
      return FlagError("--rate is {}; for all requests at once use --concurrency {}", rate,
                       std::min<int64_t>(o.requests, 10'000));
    }
    if (!(rate >= 1e-6 && rate <= 1e6)) return wrong("--rate", rate, 1e-6, 1e6);
  }
  KV_RETURN_IF_ERROR(InFlags(ParseTarget(o.url)));
  const int ways = (o.concurrency > 0) + !f.rates.empty() + !f.trace.empty();
  if (ways != 1) {
    return FlagError("say how requests arrive: one of --concurrency, --rate and --trace is needed");
  }
  return {};
}

Json RecordJson(const LoadRecord& r, double rate) {
  return {{"rate", rate},
          {"start_s", r.start_s},
          {"ttft_ms", r.ttft_s * 1e3},
          {"e2el_ms", (r.end_s - r.start_s) * 1e3},
          {"itl_ms",
           [&] {
             Json list = Json::array();
             for (const double s : r.itl_s) list.push_back(s * 1e3);
             return list;
           }()},
          {"prompt_tokens", r.prompt_tokens},
          {"cached_tokens", r.cached_tokens},
          {"output_tokens", r.output_tokens},
          {"turn", r.turn},
          {"error", r.ok ? Json() : Json(r.error)},
          {"message", r.ok ? Json() : Json(r.message)}};
}

/// An Error when requests failed: the figures are those of the others.
Status CheckAnswered(const std::string& url, const std::vector<LoadSummary>& rows) {
  int64_t failed = 0, completed = 0;
  LoadSummary::Failure first;
  for (const LoadSummary& row : rows) {
    if (failed == 0 && !row.errors.empty()) first = row.errors[0];
    failed += row.failed;
    completed += row.completed;
  }
  if (failed == 0) return {};
  return MakeError(ErrorCode::kIo, "{} answered {} of {} requests; {} failed, first with: {}", url,
                   completed == 0 ? "none" : std::to_string(completed), completed + failed, failed,
                   Reason(first.error, first.message));
}

/// The server's URL, also where it was given as clients of OpenAI's API take it.
std::string WithoutVersion(std::string url) {
  constexpr std::string_view kVersion = "/v1";
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with(kVersion)) url.resize(url.size() - kVersion.size());
  return url;
}

Result<int> BenchServe(BenchServeFlags f) {
  f.load.url = WithoutVersion(f.load.url);
  KV_RETURN_IF_ERROR(Check(f));
  KV_ASSIGN(const GoodputLimits limits, ParseGoodput(f.goodput));
  f.load.chat = f.endpoint == "chat";
  f.load.ignore_eos = !f.keep_eos;
  if (!f.trace.empty()) {
    KV_ASSIGN(f.load.trace, ReadTrace(f.trace, static_cast<size_t>(f.trace_requests)));
  }
  KV_ASSIGN(OutputFile save, OutputFile::Open(f.save));
  KV_ASSIGN(OutputFile plot, OutputFile::Open(f.plot));
  std::vector<double> rates = f.rates;
  if (rates.empty()) rates.push_back(0);
  std::vector<LoadSummary> rows;
  std::string model, records;
  bool interrupted = false;
  const InterruptScope interrupts;
  for (const double rate : rates) {
    f.load.rate = rate;
    f.load.row = rows.size();
    ProgressBar bar(rate > 0 ? fmt::format("{} requests/s", rate) : "requests");
    KV_ASSIGN(const LoadResult result,
              RunLoad(
                  f.load, [] { return InterruptScope::Take(); },
                  [&](size_t done, size_t all) { bar.Update(done, all); }));
    bar.Clear();
    LoadSummary row = Summarize(result.records, result.duration_s, limits);
    row.chat = f.load.chat;
    row.rate = rate;
    row.concurrency = f.load.concurrency;
    row.burstiness = f.load.burstiness;
    model = result.model;
    if (!f.json) WriteOut(SafeForTerminal(ToText(row, limits.any())));
    for (const LoadRecord& r : result.records) {
      if (!f.save.empty()) records += RecordJson(r, rate).dump() + "\n";
    }
    rows.push_back(std::move(row));
    interrupted = result.interrupted;
    if (interrupted) break;
  }
  if (f.json) {
    const std::string date = fmt::format("{:%Y%m%d-%H%M%S}", fmt::gmtime(std::time(nullptr)));
    Json list = Json::array();
    for (const LoadSummary& row : rows) list.push_back(ToJson(row, model, date, limits.any()));
    PrintJson(list.size() == 1 ? list[0] : Json{{"rows", list}});
  }
  KV_RETURN_IF_ERROR(save.Write(records));
  if (!f.plot.empty()) KV_RETURN_IF_ERROR(plot.Write(ToSvg(rows, limits.any())));
  if (interrupted) return kExitInterrupted;
  KV_RETURN_IF_ERROR(CheckAnswered(f.load.url, rows));
  return kExitOk;
}

}  // namespace

Command AddBenchServe(CLI::App* bench) {
  auto f = std::make_shared<BenchServeFlags>();
  CLI::App* app = bench->add_subcommand(
      "serve",
      "Load on any OpenAI-compatible server: throughput, TTFT, ITL, goodput. One of "
      "--concurrency, --rate and --trace is needed");
  app->add_option("--url", f->load.url,
                  "of the server, with or without /v1 (default: http://127.0.0.1:8000)")
      ->type_name("URL");
  app->add_option("--endpoint", f->endpoint, "chat or completions (default: chat)")
      ->type_name("NAME");
  // A name that the server knows: not the file that KVASIR_MODEL says to other subcommands.
  app->add_option("--model", f->load.model, "default: the first that the server lists")
      ->type_name("NAME")
      ->configurable(false);
  app->add_option("--api-key", f->load.key, "sent as Authorization: Bearer")->type_name("KEY");
  app->add_option("--requests", f->load.requests, "in all (default: 100)")->type_name("N");
  app->add_option("--concurrency", f->load.concurrency,
                  "closed loop: so many clients, each asks when it is answered")
      ->type_name("C");
  app->add_option("--rate", f->rates, "open loop: requests a second; a list gives a row each")
      ->delimiter(',')
      ->type_name("R[,R]");
  app->add_option("--burstiness", f->load.burstiness,
                  "of arrivals: 1 is a Poisson process, less is burstier")
      ->type_name("B");
  app->add_option("--trace", f->trace, "arrivals and lengths of a request trace (see simulate)")
      ->type_name("FILE");
  app->add_option("--trace-requests", f->trace_requests, "of the trace, the first so many")
      ->type_name("N");
  app->add_option("--speedup", f->load.speedup, "of the trace's time")->type_name("F");
  app->add_option("--shared-tokens", f->load.shared_tokens, "that all prompts begin with")
      ->type_name("N");
  app->add_option("--prompt-tokens", f->load.prompt_tokens, "of each prompt's own (default: 256)")
      ->type_name("N");
  app->add_option("--output-tokens", f->load.output_tokens, "of each answer (default: 64)")
      ->type_name("N");
  app->add_option("--turns", f->load.turns, "of each conversation (default: 1)")->type_name("N");
  app->add_option("--think-time", f->load.think_s, "seconds before the next turn (default: 0)")
      ->type_name("S");
  app->add_flag("--stop-at-eos", f->keep_eos, "answers may end before --output-tokens");
  app->add_option("--temperature", f->load.temperature, "default: 0")->type_name("T");
  app->add_option("--bench-seed", f->load.seed,
                  "of prompts and arrivals; a server that has seen a seed has its prompts cached "
                  "(default: 1)")
      ->type_name("N");
  app->add_option("--warmup", f->load.warmup, "requests before those that count (default: 0)")
      ->type_name("N");
  app->add_option("--timeout", f->load.timeout_s, "of a request (default: 600)")->type_name("S");
  app->add_option("--goodput", f->goodput,
                  "what a good request keeps: ttft:MS, itl:MS (its worst), tpot:MS, e2el:MS")
      ->type_name("LIMIT");
  app->add_option("--plot", f->plot, "writes a curve over the rates (SVG)")->type_name("FILE");
  app->add_option("--save-requests", f->save, "writes a JSON line for each request")
      ->type_name("FILE");
  app->add_flag("--json", f->json, "one JSON object on stdout");
  return [f] { return BenchServe(*f); };
}

}  // namespace kvasir
