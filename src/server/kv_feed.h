#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "server/kv_report.h"
#include "server/reply.h"
#include "server/server_state.h"
#include "tenant/key_table.h"

namespace kvasir {

/// The cache as it is now, for those who look: once, as a stream, or as metrics. The engine is
/// asked for a snapshot between two steps, and only when somebody looks; one serves all who look at
/// the time. On the I/O thread.
class KvFeed {
 public:
  explicit KvFeed(ServerState* state) : state_(state) {}

  /// GET /v1/kv
  void Once(const std::shared_ptr<ApiReply>& reply);
  /// GET /v1/kv/stream?interval_ms=N: an event every N milliseconds (100 to 60000; 500).
  void Watch(const HttpRequest& request, std::shared_ptr<ApiReply> reply);
  /// GET /metrics
  void Metrics(const std::shared_ptr<ApiReply>& reply);
  /// Ends the streams of those whose key is gone, or no operator's any more: the keys were read
  /// again.
  void EndRevoked();
  /// Ends all streams: the server drains.
  void End();

  static constexpr size_t kMostViewers = 64;

 private:
  struct Viewer {
    std::shared_ptr<ApiReply> reply;
    KeyHash key;  ///< of what it was opened with, where there are keys
    int64_t interval_ns, due_ns;
    uint64_t seen_step;  ///< the last step that it was told of
  };
  struct Look {
    std::shared_ptr<const KvSnapshot> snapshot;
    std::shared_ptr<const Ledger> ledger;  // of a few seconds ago, at most
  };
  void Ask(KvSnapshot (*read)(const Engine&), std::function<void(const Look&)> then);
  KvView ViewOf(const Look& look, uint64_t after_step) const;
  void Tick();
  void TickSoon();
  void Send(const Look& look);

  ServerState* state_;
  std::vector<Viewer> viewers_;
  std::shared_ptr<const Ledger> ledger_;
  int64_t ledger_ns_ = 0;  // when it was asked for
  bool ticking_ = false;
  bool asked_ = false;  // a snapshot for the viewers is on its way
};

}  // namespace kvasir
