#include "text/detokenizer.h"

#include "text/utf8.h"

namespace kvasir {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool special, bool at_start)
    : tokenizer_(&tokenizer),
      special_(special),
      first_(at_start && tokenizer.data().model == "llama" && tokenizer.data().add_space_prefix) {}

std::string Detokenizer::Push(TokenId id) {
  std::string bytes = tokenizer_->TokenBytes(id, special_);
  if (first_ && !bytes.empty()) {
    if (bytes[0] == ' ') bytes.erase(0, 1);
    first_ = false;
  }
  const size_t held = pending_.size();
  before_token_ = 0;
  pending_ += bytes;
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Char c = DecodeUtf8(std::string_view(pending_).substr(at));
    if (c.truncated) break;
    AppendUtf8(c.code, &out);
    at += static_cast<size_t>(c.valid ? c.bytes : c.subpart);
    if (at <= held) ++before_token_;
  }
  pending_.erase(0, at);
  return out;
}

}  // namespace kvasir
