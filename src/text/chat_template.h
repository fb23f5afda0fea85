#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kvasir {

/// Limits within which a template must finish: a template comes with a model file and is not
/// trusted.
struct TemplateLimits {
  size_t max_source_bytes = 1 << 20;
  size_t max_steps = 2'000'000;        ///< nodes evaluated; 128 bytes walked over are one too
  size_t max_output_bytes = 16 << 20;  ///< and of any intermediate string
  int max_depth = 200;                 ///< of nesting, when parsing and when running
};

/// A compiled chat template: the part of Jinja2 that model families use, as `transformers` sets it
/// up (trim_blocks and lstrip_blocks on, loop controls, its `tojson`, `raise_exception`,
/// `strftime_now`). Immutable; may be rendered from several threads.
class ChatTemplate {
 public:
  /// Compiles; an error names the line and what was expected.
  static Result<ChatTemplate> Compile(std::string_view source, TemplateLimits limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// Renders with the variables of `context` (an object: messages, tools, add_generation_prompt,
  /// bos_token, ...). Key order of objects is kept. `now` is the Unix time that strftime_now shows,
  /// in UTC. raise_exception and every limit come back as an Error.
  Result<std::string> Render(const nlohmann::ordered_json& context, int64_t now) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
