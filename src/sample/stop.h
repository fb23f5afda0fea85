#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

/// Finds stop strings in a growing text and holds back what might become one, so that not even a
/// part of a stop string is ever shown. O(1) amortised a byte (Aho-Corasick over all strings).
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& strings);

  struct Output {
    std::string text;      ///< now certain: may be shown
    bool stopped = false;  ///< a stop string was completed; `text` ends before it
    int matched = -1;      ///< index of the stop string
  };
  /// Takes more text. After `stopped` nothing more may be pushed. Where several stop strings
  /// complete at the same byte, the one that starts first wins. `may_stop` false: those that this
  /// text completes do not count (min_tokens); one that is completed later does, wherever it
  /// starts.
  Output Push(std::string_view text, bool may_stop = true);
  /// At the end of the generation for another reason: what was held back.
  std::string Finish();

 private:
  struct Node {
    std::map<char, int> next;
    int fail = 0;      // longest proper suffix that is a prefix of a stop string
    int depth = 0;     // length of the prefix that this node stands for
    int matched = -1;  // the longest stop string that ends here
  };
  int Step(int state, char byte) const;

  std::vector<std::string> strings_;
  std::vector<Node> nodes_;
  int state_ = 0;
  std::string held_;
};

}  // namespace kvasir
