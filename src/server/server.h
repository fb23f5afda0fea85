#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/loaded_model.h"
#include "http/http_server.h"

namespace kvasir {

struct ServerOptions {
  HttpOptions http;
  std::string model_name;       ///< as clients see it
  std::string keys_path;        ///< TOML file of API keys; empty: everybody may do everything
  bool log_prompts = false;     ///< the text of prompts goes to the log
  double drain_timeout_s = 30;  ///< how long open answers have after SIGTERM
};

/// The engine behind HTTP. Three kinds of threads: the I/O thread (Run) has all connections and
/// state; the engine's thread (RunEngine) computes; text workers render, tokenize and print. They
/// hand over whole values and never wait for one another.
class Server {
 public:
  /// Opens the port and reads the keys. Until Ready, everything is answered 503.
  static Result<std::unique_ptr<Server>> Listen(ServerOptions options);
  ~Server();

  /// Where it can be reached.
  std::string url() const;
  /// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads the keys again. Returns when
  /// all is closed. Called on the I/O thread.
  void Run();
  /// The model is there: requests are taken. Any thread, once; the model must outlive the server.
  void Ready(LoadedModel* model, const EngineTuning& tuning);
  /// Steps until the server has ended. Called on the engine's thread, after Ready.
  void RunEngine();
  /// As SIGTERM does; any thread.
  void Drain();
  /// True once a signal has asked it to end. Any thread.
  bool ending() const;

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
