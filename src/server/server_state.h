#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "api/loaded_model.h"
#include "http/http_server.h"
#include "metrics/server_metrics.h"
#include "openai/completion_request.h"
#include "server/engine_loop.h"
#include "server/request_log.h"
#include "server/server.h"
#include "server/text_workers.h"
#include "tenant/key_table.h"
#include "tenant/rate_limiter.h"

namespace kvasir {

class Completions;
class KvFeed;

/// What all handlers share. Of the I/O thread, but for what says otherwise.
struct ServerState {
  ServerOptions options;
  uint64_t id_key = 0;  ///< random: ids of answers are numbers of the generator under it
  std::unique_ptr<HttpServer> http;
  LoadedModel* model = nullptr;  ///< not there yet: null. Text workers read it too
  int32_t max_sequences = 0;     ///< EngineTuning's
  std::unique_ptr<EngineLoop> loop;
  std::unique_ptr<TextWorkers> workers;
  std::optional<KeyTable> keys;
  /// Of `keys`, for what operators are told; another one after a reload. Never null.
  std::shared_ptr<const TenantNames> tenant_names;
  RateLimiter limiter;
  ServerMetrics metrics;
  LineLimit refusals;  ///< of the log's lines about them
  std::unique_ptr<Completions> completions;
  std::unique_ptr<KvFeed> kv_feed;
  bool draining = false;
  std::atomic<bool> ending{false};
  uint64_t answers = 0;  ///< the generator's counter
  int64_t started = 0;   ///< Unix time
};

}  // namespace kvasir
