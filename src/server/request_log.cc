#include "server/request_log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "openai/json_text.h"
#include "server/completions.h"
#include "server/reply.h"

namespace kvasir {
namespace {

constexpr size_t kQueuedLines = 8192;
constexpr size_t kMostPromptBytes = 64 << 10;
constexpr size_t kMostPathBytes = 128;

std::string_view OrDash(std::string_view name) { return name.empty() ? "-" : name; }

std::string_view NameOf(MissReason reason) {
  constexpr std::string_view kNames[] = {"none", "never_seen", "diverged", "evicted", "window"};
  return kNames[static_cast<size_t>(reason)];
}

}  // namespace

Status StartLog(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return MakeError(ErrorCode::kInvalid,
                     "--log-level is \"{}\"; use trace, debug, info, warn, error, critical or off",
                     level);
  }
  spdlog::init_thread_pool(kQueuedLines, 1);
  auto logger = std::make_shared<spdlog::async_logger>(
      "kvasir", std::make_shared<spdlog::sinks::stderr_sink_mt>(), spdlog::thread_pool(),
      spdlog::async_overflow_policy::overrun_oldest);
  logger->set_level(parsed);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
  spdlog::set_default_logger(std::move(logger));
  return {};
}

void EndLog() { spdlog::shutdown(); }

void LogInfo(const std::string& line) { spdlog::info("{}", line); }
void LogWarning(const std::string& line) { spdlog::warn("{}", line); }

bool LineLimit::Take(int64_t now_ns) {
  const int64_t second = now_ns / 1'000'000'000;
  if (second != second_) {
    second_ = second;
    written_ = 0;
  }
  if (written_ == kPerSecond) {
    ++left_out_;
    return false;
  }
  ++written_;
  return true;
}

uint64_t LineLimit::TakeLeftOut() { return std::exchange(left_out_, 0); }

void LogRefusal(LineLimit* limit, int64_t now_ns, const ApiError& error, const ApiReply& reply) {
  if (!limit->Take(now_ns)) return;
  std::string line =
      fmt::format("event=refused status={} code={} tenant={} path={}", error.status, CodeOf(error),
                  OrDash(reply.tenant()), JsonLine(reply.path().substr(0, kMostPathBytes)));
  if (!error.param.empty()) line += " param=" + JsonLine(error.param.substr(0, kMostPathBytes));
  if (!reply.client_id().empty()) line += " client_id=" + JsonLine(reply.client_id());
  spdlog::info("{}", line);
}

void LogLeftOut(LineLimit* limit) {
  if (const uint64_t count = limit->TakeLeftOut(); count > 0)
    spdlog::info("event=refused_left_out count={}", count);
}

void LogRequest(const OpenCompletion& c, const UsageCount& usage, double seconds,
                const TenantNames& names) {
  if (!spdlog::should_log(spdlog::level::info)) return;
  const double rate = c.first.decode_tokens_per_second();
  const double mean_itl = rate > 0 ? 1 / rate : 0;
  const SequenceTimes& t = c.first.times;
  std::string line = fmt::format(
      "event=request id={} tenant={} endpoint={} stream={} prompts={} prompt_tokens={} "
      "cached_tokens={} output_tokens={} queue_ms={:.1f} ttft_ms={:.1f} itl_ms={:.2f} "
      "itl_max_ms={:.1f} total_ms={:.1f} preempted_ms={:.1f} others_prefill_ms={:.1f} reason={} "
      "cache_ended={}",
      c.id, OrDash(c.caller.name), c.request.endpoint == Endpoint::kChat ? "chat" : "completions",
      c.request.stream ? 1 : 0, c.request.requests.size(), usage.prompt_tokens, usage.cached_tokens,
      usage.output_tokens, t.queue * 1e3, usage.ttft_s * 1e3, mean_itl * 1e3, c.longest_gap_s * 1e3,
      seconds * 1e3, t.preempted * 1e3, t.others * 1e3, NameOf(c.reason),
      NameOf(c.first.cache.reason));
  const CacheReport& cache = c.first.cache;
  if (cache.reason == MissReason::kEvicted && cache.evicted_for != 0)
    line += " evicted_for=" + TenantName(cache.evicted_for, names);
  if (cache.reason == MissReason::kDiverged && cache.diverged_tenant != 0)
    line += " diverged_from=" + TenantName(cache.diverged_tenant, names);
  if (const std::string& id = c.reply->client_id(); !id.empty())
    line += " client_id=" + JsonLine(id);
  if (!c.error.empty()) line += " error=" + JsonLine(c.error);
  if (!c.prompt_text.empty())
    line += " prompt=" + JsonLine(c.prompt_text.substr(0, kMostPromptBytes));
  spdlog::info("{}", line);
}

}  // namespace kvasir
