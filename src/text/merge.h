#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

namespace kvasir {

/// A piece of a text while it is merged: a doubly linked list in text order.
struct MergeSymbol {
  size_t begin = 0, length = 0;  ///< bytes; length 0: merged into the one before
  int32_t id = -1;               ///< what it is, in the caller's terms
  ptrdiff_t prev = -1, next = -1;
};

/// What two neighbours would become.
struct MergeCandidate {
  double priority = 0;  ///< the greatest is merged first
  int32_t id = -1;      ///< -1: they are not merged
};

/// Byte-pair encoding (Sennrich et al. 2016) in O(n log n): merges the best pair of neighbours, the
/// leftmost of equals, until none is left. `pair(a, b)` gives a MergeCandidate for neighbours.
template <typename Pair>
void MergeSymbols(std::vector<MergeSymbol>& symbols, Pair pair) {
  struct Entry {
    double priority;
    ptrdiff_t left;
    size_t length;  // of both: symbols only grow, so another length means that one has changed
    int32_t id;
    bool operator<(const Entry& o) const {
      return priority != o.priority ? priority < o.priority : left > o.left;
    }
  };
  std::vector<Entry> initial;
  const auto candidate = [&](ptrdiff_t left, auto push) {
    const ptrdiff_t right = left < 0 ? -1 : symbols[left].next;
    if (right < 0) return;
    const MergeCandidate c = pair(symbols[left], symbols[right]);
    if (c.id >= 0)
      push(Entry{c.priority, left, symbols[left].length + symbols[right].length, c.id});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    candidate(static_cast<ptrdiff_t>(i), [&](const Entry& e) { initial.push_back(e); });
  }
  std::priority_queue<Entry> queue(std::less<Entry>(), std::move(initial));
  while (!queue.empty()) {
    const Entry e = queue.top();
    queue.pop();
    MergeSymbol& left = symbols[e.left];
    if (left.length == 0 || left.next < 0) continue;
    MergeSymbol& right = symbols[left.next];
    if (left.length + right.length != e.length) continue;
    left.length = e.length;
    left.id = e.id;
    right.length = 0;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].prev = e.left;
    const auto push = [&](const Entry& x) { queue.push(x); };
    candidate(left.prev, push);
    candidate(e.left, push);
  }
}

}  // namespace kvasir
