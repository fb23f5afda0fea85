#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kvasir {

/// Where a server is: http://HOST:PORT.
struct LoadTarget {
  std::string host;
  uint16_t port = 80;
  std::string prefix;  ///< of paths; without the last slash
};
Result<LoadTarget> ParseTarget(const std::string& url);

/// A small HTTP/1.1 client for many requests at once on one thread. Connections are used again.
class LoadClient {
 public:
  /// `key`: sent as Authorization: Bearer; empty: not at all.
  LoadClient(const LoadTarget& target, const std::string& key);
  ~LoadClient();

  using OnData = std::function<void(std::string_view bytes)>;
  /// `status` 0: there was no answer, `error` says why; an error with a status: it was cut off.
  using OnDone = std::function<void(int status, const std::string& error)>;
  /// Sends a request; `body` empty: GET, else POST. `data` gets the answer's body as it comes,
  /// `done` is called once.
  void Send(const std::string& path, const std::string& body, double timeout_s, OnData data,
            OnDone done);
  /// Calls `fn` after some seconds.
  void After(double seconds, std::function<void()> fn);

  /// Works until there is nothing to do, or Stop.
  void Run();
  void Stop();

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

}  // namespace kvasir
