#include "text/special_tokens.h"

namespace kvasir {
namespace {

uint64_t Edge(int32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

void SpecialTokens::Add(std::string_view text, int32_t id) {
  int32_t at = 0;
  for (const char byte : text) {
    const auto [it, added] = child_.try_emplace(Edge(at, byte), static_cast<int32_t>(id_.size()));
    at = it->second;
    if (added) id_.push_back(-1);
  }
  if (id_[at] < 0) id_[at] = id;
}

SpecialTokens::Match SpecialTokens::Find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    Match best;
    int32_t at = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto it = child_.find(Edge(at, text[i]));
      if (it == child_.end()) break;
      at = it->second;
      if (id_[at] >= 0) best = {begin, i + 1, id_[at]};
    }
    if (best.id >= 0) return best;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace kvasir
