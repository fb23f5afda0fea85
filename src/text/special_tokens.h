#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kvasir {

/// Finds tokens that are written out in a text (control tokens such as <|im_end|>, and those that a
/// model's makers added): the leftmost first, the longest of those that start there.
class SpecialTokens {
 public:
  /// `text` must not be empty; the first of two equal texts counts.
  void Add(std::string_view text, int32_t id);

  struct Match {
    size_t begin = 0, end = 0;
    int32_t id = -1;  ///< -1: none
  };
  /// Nodes of the tree: what memory and the time to add go by, some 50 bytes each.
  size_t size() const { return id_.size(); }
  /// The first one at or after `from`. Time O(length until then x longest token).
  Match Find(std::string_view text, size_t from) const;

 private:
  // A trie: the child of a node by a byte, and the token that a node completes.
  std::unordered_map<uint64_t, int32_t> child_;
  std::vector<int32_t> id_ = {-1};
};

}  // namespace kvasir
