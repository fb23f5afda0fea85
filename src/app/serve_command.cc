#include <fmt/format.h>

#include <filesystem>
#include <thread>

#include "app/commands.h"
#include "app/flags.h"
#include "app/input.h"
#include "app/load.h"
#include "app/request_memory.h"
#include "app/settings.h"
#include "app/terminal.h"
#include "server/request_log.h"
#include "server/server.h"
#include "server/system_calls.h"

namespace kvasir {
namespace {

struct ServeFlags {
  ModelFlags model;
  std::string host = "127.0.0.1", unix_path, tls_cert, tls_key, keys, alias, body_limit;
  std::string log_level = "info";
  std::vector<std::string> cors;
  int port = 8000;
  int32_t max_sequences = 32, connections = 10000;
  int64_t max_waiting = 256;
  double itl_target_ms = 50, drain_timeout_s = 30;
  bool log_prompts = false, no_keys = false, seccomp = false;
};

/// The key file: as given, or the usual one if there is one.
Result<std::string> KeysOf(const ServeFlags& f) {
  if (!f.keys.empty() || f.no_keys) return f.keys;
  KV_ASSIGN(const bool exists, Exists(DefaultKeyFile()));
  return exists ? DefaultKeyFile() : "";
}

Status CheckRanges(const ServeFlags& f) {
  const auto out_of_range = [](const char* name, auto value, auto least, auto most) {
    return FlagError("{} is {}; it must be from {} to {}", name, value, least, most);
  };
  if (f.port < 0 || f.port > 65535) return out_of_range("--port", f.port, 0, 65535);
  if (f.max_sequences < 1 || f.max_sequences > 4096)
    return out_of_range("--max-sequences", f.max_sequences, 1, 4096);
  if (f.connections < 1 || f.connections > 1'000'000)
    return out_of_range("--connections", f.connections, 1, 1'000'000);
  if (f.max_waiting < 1 || f.max_waiting > 1'000'000)
    return out_of_range("--max-waiting", f.max_waiting, 1, 1'000'000);
  if (!(f.itl_target_ms >= 0 && f.itl_target_ms <= 1e6))
    return out_of_range("--itl-target", f.itl_target_ms, 0, 1'000'000);
  if (!(f.drain_timeout_s >= 0 && f.drain_timeout_s <= 1e6))
    return out_of_range("--drain-timeout", f.drain_timeout_s, 0, 1'000'000);
  if (!f.keys.empty() && f.no_keys) return FlagError("--keys and --no-keys exclude one another");
  if (f.tls_cert.empty() != f.tls_key.empty())
    return FlagError("--tls-cert and --tls-key belong together");
  if (f.keys.empty() && f.unix_path.empty() && !IsLoopback(f.host) && !f.no_keys) {
    return FlagError(
        "--host {} lets others in, and there are no API keys: make one (kvasir key "
        "add NAME), or say --no-keys",
        f.host);
  }
  return {};
}

ServerOptions ToServerOptions(const ServeFlags& f, const std::string& path,
                              const RequestMemory& requests) {
  ServerOptions o;
  o.http.host = f.host;
  o.http.port = static_cast<uint16_t>(f.port);
  o.http.unix_path = f.unix_path;
  o.http.tls_cert = f.tls_cert;
  o.http.tls_key = f.tls_key;
  o.http.cors_origins = f.cors;
  o.http.limits.connections = f.connections;
  o.http.limits.body_bytes = requests.body_bytes;
  o.http.limits.all_bodies_bytes = requests.all_bodies_bytes;
  o.model_name = f.alias.empty() ? std::filesystem::path(path).stem().string() : f.alias;
  o.keys_path = f.keys;
  o.log_prompts = f.log_prompts;
  o.drain_timeout_s = f.drain_timeout_s;
  return o;
}

/// Steps in which somebody decodes may take so much longer than decoding alone, where that is above
/// the target already: tokens then come at most at about half the pace while a prompt is computed.
constexpr double kLeastPrefill = 0.7;

/// What the plan says, before the time that loading takes.
void PrintPlan(const MemoryPlan& p, const ServeFlags& f, const std::string& path) {
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  WriteErr(
      fmt::format("weights {:.0f} MiB, scratch {:.0f} MiB, KV pool {:.0f} MiB: {} blocks of {} "
                  "tokens; context {} tokens; at most {} sequences at once, {} waiting\n"
                  "loading {}\n",
                  mib(p.weights_bytes), mib(p.scratch_bytes), mib(p.kv_bytes), p.kv_blocks,
                  p.layout.block_tokens, p.context, f.max_sequences, f.max_waiting, path));
}

/// The thread that has all connections. Where serving does not come about, they end with it.
class IoThread {
 public:
  explicit IoThread(Server* server) : server_(server), thread_([server] { server->Run(); }) {}
  ~IoThread() {
    if (!thread_.joinable()) return;
    server_->Drain();
    thread_.join();
  }
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  void Join() { thread_.join(); }

 private:
  Server* server_;
  std::thread thread_;
};

/// The log, to its last line.
struct Log {
  ~Log() { EndLog(); }
};

/// `settings`: what the flags are made of, see SettingsLine.
Result<int> Serve(ServeFlags flags, const std::string& settings) {
  KV_ASSIGN(flags.keys, KeysOf(flags));
  KV_RETURN_IF_ERROR(CheckRanges(flags));
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, flags.max_sequences));
  load.memory.contexts = flags.max_sequences;
  KV_ASSIGN(const RequestMemory requests,
            PlanRequests(flags.body_limit, ReadMemoryLimits().available_bytes));
  load.memory.requests_bytes = requests.bytes;
  ServerOptions options = ToServerOptions(flags, load.path, requests);
  const std::string keys = options.keys_path;
  KV_RETURN_IF_ERROR(InFlags(StartLog(flags.log_level)));
  const Log log;
  std::unique_ptr<LoadedModel> model;  // outlives the server, whose threads look at it
  KV_ASSIGN(const std::unique_ptr<Server> server, Server::Listen(std::move(options)));
  IoThread io(server.get());
  load.planned = [&](const MemoryPlan& plan, const ModelConfig&) {
    // What runs for weeks is asked later what it was told, and by whom.
    WriteErr(settings);
    PrintPlan(plan, flags, load.path);
  };
  KV_ASSIGN(model, LoadWithProgress(load));
  // All threads run by now, and nothing is opened after this.
  if (flags.seccomp) KV_RETURN_IF_ERROR(KeepServingCallsOnly(!flags.unix_path.empty()));
  server->Ready(model.get(), {.max_sequences = flags.max_sequences,
                              .itl_target_s = flags.itl_target_ms * 1e-3,
                              .least_prefill = kLeastPrefill,
                              .max_waiting = flags.max_waiting});
  if (!keys.empty()) WriteErr(fmt::format("API keys from {}\n", keys));
  WriteOut(fmt::format("listening on {}\n", server->url()));
  server->RunEngine();
  io.Join();
  return kExitOk;
}

}  // namespace

Command AddServeCommand(CLI::App* root, const SettingOrigins* origins) {
  auto f = std::make_shared<ServeFlags>();
  CLI::App* app = root->add_subcommand(
      "serve", "An OpenAI-compatible server, with a web chat and a live view of the KV cache");
  AddComputeFlags(app, &f->model);
  app->get_option("--kv-memory")
      ->description(
          "size of the KV pool, e.g. 2G (default: --max-sequences full contexts, within half of "
          "the memory that is left)");
  const std::string net = "Network", limits = "Limits", log = "Log";
  app->add_option("--host", f->host, "address to listen on (default: 127.0.0.1)")
      ->type_name("HOST")
      ->group(net);
  app->add_option("--port", f->port, "port; 0: any free one (default: 8000)")
      ->type_name("PORT")
      ->group(net);
  app->add_option("--unix", f->unix_path, "listen on a Unix socket instead")
      ->type_name("PATH")
      ->group(net);
  app->add_option("--tls-cert", f->tls_cert, "PEM certificate chain: serve https")
      ->type_name("FILE")
      ->group(net);
  app->add_option("--tls-key", f->tls_key, "PEM key of the certificate")
      ->type_name("FILE")
      ->group(net);
  app->add_option("--cors", f->cors, "origin whose pages may use the API; *: all; may be repeated")
      ->type_name("ORIGIN")
      ->group(net);
  app->add_option("--keys", f->keys,
                  "API keys, each a tenant's (default: what kvasir key has written)")
      ->type_name("FILE")
      ->group(net);
  app->add_flag("--no-keys", f->no_keys, "everybody may do everything, whatever the address")
      ->group(net);
  app->add_flag("--seccomp", f->seccomp,
                "once it serves, the kernel refuses the process what it does not need: programs, "
                "connections to elsewhere, files to write")
      ->group(net);
  app->add_option("--alias", f->alias, "the model's name to clients (default: the file's)")
      ->type_name("NAME")
      ->group(net);
  app->add_option("--max-sequences,--max-num-seqs", f->max_sequences,
                  "sequences computed at once (default: 32)")
      ->type_name("N")
      ->group(limits);
  app->add_option("--max-waiting", f->max_waiting,
                  "requests that may wait; more are answered 429 (default: 256)")
      ->type_name("N")
      ->group(limits);
  app->add_option("--itl-target", f->itl_target_ms,
                  "milliseconds that a step should take while somebody decodes; 0: no target "
                  "(default: 50)")
      ->type_name("MS")
      ->group(limits);
  app->add_option("--drain-timeout", f->drain_timeout_s,
                  "seconds that open answers have after SIGTERM (default: 30)")
      ->type_name("S")
      ->group(limits);
  app->add_option("--connections", f->connections, "open at once, at most (default: 10000)")
      ->type_name("N")
      ->group(limits);
  app->add_option("--body-limit", f->body_limit,
                  "size of a request's body, at most (default: 32M, less "
                  "where memory is short)")
      ->type_name("SIZE")
      ->group(limits);
  app->add_option("--log-level", f->log_level,
                  "trace, debug, info, warn, error, critical or off (default: info)")
      ->type_name("LEVEL")
      ->group(log);
  app->add_flag("--log-prompts", f->log_prompts, "write the text of prompts to the log")
      ->group(log);
  return [f, root, origins] { return Serve(*f, SettingsLine(root, *origins)); };
}

}  // namespace kvasir
