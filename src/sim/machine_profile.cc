#include "sim/machine_profile.h"

#include <cstring>
#include <fstream>

namespace kvasir {

nlohmann::ordered_json ProfileJson(const MachineProfile& m, const ModelShape& s,
                                   const std::string& about) {
  return {{"about", about},
          {"step_s", m.step_s},
          {"prefill_tokens_per_s", m.prefill_tokens_per_s},
          {"key_s", m.key_s},
          {"prompt_key_s", m.prompt_key_s},
          {"windows", s.windows},
          {"kv_heads", s.kv_heads},
          {"head_dim", s.head_dim}};
}

Status ReadProfile(const std::string& path, MachineProfile* machine, ModelShape* shape) {
  std::ifstream in(path);
  if (!in.is_open())
    return MakeError(ErrorCode::kNotFound, "cannot open {}: {}", path, std::strerror(errno));
  const nlohmann::json json = nlohmann::json::parse(in, nullptr, false);
  if (!json.is_object())
    return MakeError(ErrorCode::kInvalid, "{} is no profile: not a JSON object", path);
  const auto number = [&](const char* name, double least, double most, auto* out) -> Status {
    const auto it = json.find(name);
    if (it == json.end() || !it->is_number() || !(it->get<double>() >= least) ||
        !(it->get<double>() <= most))
      return MakeError(ErrorCode::kInvalid, "{}: {} is missing, or not a number from {} to {}",
                       path, name, least, most);
    *out = it->get<std::decay_t<decltype(*out)>>();
    return {};
  };
  KV_RETURN_IF_ERROR(number("step_s", 0, 1e4, &machine->step_s));
  KV_RETURN_IF_ERROR(number("prefill_tokens_per_s", 1e-3, 1e12, &machine->prefill_tokens_per_s));
  KV_RETURN_IF_ERROR(number("key_s", 0, 1e4, &machine->key_s));
  KV_RETURN_IF_ERROR(number("prompt_key_s", 0, 1e4, &machine->prompt_key_s));
  KV_RETURN_IF_ERROR(number("kv_heads", 1, 65536, &shape->kv_heads));
  KV_RETURN_IF_ERROR(number("head_dim", 1, 65536, &shape->head_dim));
  const auto windows = json.find("windows");
  if (windows == json.end() || !windows->is_array() || windows->empty())
    return MakeError(ErrorCode::kInvalid, "{}: windows is missing, or no list", path);
  shape->windows.clear();
  for (const auto& w : *windows) {
    if (!w.is_number_integer() || w < 0 || w > INT32_MAX)
      return MakeError(ErrorCode::kInvalid, "{}: windows has {}; a number of tokens, or 0", path,
                       w.dump());
    shape->windows.push_back(w.get<int32_t>());
  }
  return {};
}

}  // namespace kvasir
