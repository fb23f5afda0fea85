#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/check.h"

namespace kvasir {

/// Byte-pair encoding (Sennrich et al. 2016): merges the best pair of neighbours, the leftmost of
/// equals, until none is left. Time O(n log n). What it keeps is below 11 bytes for each byte of
/// the longest text, and is used again for the next: a prompt may be one word of megabytes.
class PairMerger {
 public:
  /// The order of a pair that is not merged; the smallest is merged first.
  static constexpr uint32_t kNever = UINT32_MAX;
  static constexpr size_t kMaxSymbolBytes = UINT16_MAX;

  struct Symbol {
    size_t begin = 0, length = 0;  ///< bytes of the text
    int32_t id = -1;               ///< what it is, in the caller's terms
  };
  /// What two neighbours would become.
  struct Merge {
    uint32_t order = kNever;
    int32_t id = -1;
  };

  /// Starts on a text of so many bytes.
  void Start(size_t bytes) {
    ids_.clear();
    spans_.clear();
    ids_.reserve(bytes);
    spans_.reserve(bytes);
  }

  /// The next symbol of the text, of at least one byte.
  void Add(size_t length, int32_t id) {
    const size_t begin = ids_.size();
    ids_.resize(begin + length, -1);
    spans_.resize(begin + length, 0);
    ids_[begin] = id;
    SetSpan(begin, length);
  }

  /// `pair(a, b)` gives the Merge of two neighbours; always the same for the same two, and never of
  /// more than kMaxSymbolBytes.
  template <typename Pair>
  void Run(Pair pair) {
    const auto order = [&](size_t at) {
      const Symbol left = At(at);
      const size_t next = at + left.length;
      return next == ids_.size() ? kNever : pair(left, At(next)).order;
    };
    StartOrders();
    for (size_t at = 0; at < ids_.size(); at += spans_[at]) levels_[0][at] = order(at);
    for (size_t k = 0; k + 1 < depth_; ++k) {
      for (size_t i = 0; i < levels_[k].size(); i += kFan)
        levels_[k + 1][i / kFan] = Least(&levels_[k][i]);
    }
    for (size_t at = 0; FindFirst(&at);) {
      const Symbol left = At(at), right = At(at + left.length);
      ids_[at] = pair(left, right).id;
      SetSpan(at, left.length + right.length);
      SetOrder(right.begin, kNever);
      SetOrder(at, order(at));
      if (at > 0) SetOrder(at - spans_[at - 1], order(at - spans_[at - 1]));
    }
  }

  template <typename F>
  void ForEach(F f) const {
    for (size_t at = 0; at < ids_.size(); at += spans_[at]) f(At(at));
  }

 private:
  static constexpr size_t kFan = 16;

  Symbol At(size_t begin) const { return {begin, spans_[begin], ids_[begin]}; }

  void SetSpan(size_t begin, size_t length) {
    CHECK(length <= kMaxSymbolBytes);
    spans_[begin] = spans_[begin + length - 1] = static_cast<uint16_t>(length);
  }

  static uint32_t Least(const uint32_t* of) {
    uint32_t least = kNever;
    for (size_t i = 0; i < kFan; ++i) least = std::min(least, of[i]);
    return least;
  }

  void StartOrders() {
    depth_ = 0;
    for (size_t n = ids_.size(); depth_ == 0 || n > 1; n = (n + kFan - 1) / kFan) {
      if (levels_.size() == depth_) levels_.emplace_back();
      levels_[depth_++].assign((n + kFan - 1) / kFan * kFan, kNever);
    }
  }

  void SetOrder(size_t at, uint32_t order) {
    levels_[0][at] = order;
    for (size_t k = 0; k + 1 < depth_; ++k, at /= kFan) {
      const uint32_t least = Least(&levels_[k][at / kFan * kFan]);
      if (std::exchange(levels_[k + 1][at / kFan], least) == least) return;
    }
  }

  /// The first of the smallest; false if there is none but kNever.
  bool FindFirst(size_t* at) const {
    *at = 0;
    for (size_t k = depth_; k-- > 0;) {
      const uint32_t* few = &levels_[k][*at * kFan];
      const uint32_t least = Least(few);
      if (least == kNever) return false;
      *at = *at * kFan + static_cast<size_t>(std::find(few, few + kFan, least) - few);
    }
    return true;
  }

  // By byte of the text. A symbol has its id where it begins, and its length where it begins and
  // where it ends, so that both neighbours are found; what else stands there is of no meaning.
  std::vector<int32_t> ids_;
  std::vector<uint16_t> spans_;
  // levels_[0]: the order of the pair that begins at a byte; above, the least of each kFan below.
  std::vector<std::vector<uint32_t>> levels_;
  size_t depth_ = 0;  // levels in use
};

}  // namespace kvasir
