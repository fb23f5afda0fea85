#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace kvasir {

/// What cached blocks are worth keeping, learned while running: how soon an admitted sequence is
/// continued (a chat's next turn), by how many turns it had and how long ago it was admitted, and
/// how much of its end is reused then. Time is counted in admissions; there is no clock and no
/// look-ahead. A block's worth is the most hits per time in the cache that keeping it for any while
/// promises (Gittins' index; "hit density" in Beckmann, Chen and Cidon, LHD, NSDI 2018). It need
/// not fall with age: between two turns somebody thinks, so what was used a moment ago returns
/// later than what has been waiting for a while.
///
/// Where not all that will return can be kept, it keeps some for long enough, those with several
/// turns first, where LRU keeps all for too short a while. Figures: docs/scheduling.md. Tried on
/// the same trace and not better (2026-11-25): more classes, by lengths of prompt and output or by
/// the pause before; ages in whole octaves (34.40 at 40%, LRU 34.42); no tails (14.3 at 5, 34.29 at
/// 40%). A bonus of recency for each hit, learned as in ARC, got to 11.79, 20.73, 28.32, 34.42%.
class ReuseModel {
 public:
  static constexpr int kClasses = 4;  ///< turns before this one; the last: 3 and more
  static constexpr int kTails = 6;    ///< distance from the sequence's end: < 64, 128, .. tokens
  static constexpr int kGroups = kClasses * kTails;
  static constexpr int kAges = 27;          ///< in admissions: 0, 2, 3, 4, 6, 8, 12, .. 12288
  static constexpr uint64_t kMost = 16384;  ///< admissions that are remembered

  /// Blocks of one group and of an age in [from, to): worth the same.
  struct Cell {
    int group = 0, age = 0;
    uint64_t from = 0, to = 0;
    double worth = 0;
  };

  ReuseModel();

  /// Time goes on by one admission, which is returned; the first is 1.
  uint64_t Tick();
  uint64_t now() const { return now_; }
  /// The newest admission has `tokens` tokens so far. It found `reached` tokens of what admission
  /// `previous` (0: none) used last, or knew that they had been there; tokens at `missed` and
  /// beyond are known not to be in common.
  void Admitted(int32_t tokens, uint64_t previous, int32_t reached, int32_t missed);
  /// An admission's sequence got as long as this.
  void Ended(uint64_t admission, int32_t tokens);

  /// The group of a block that this admission used last, whose tokens end at `end_tokens`.
  int Group(uint64_t admission, int32_t end_tokens) const;
  /// All cells, the least worth first. Changes with Tick.
  const std::vector<Cell>& order() const { return order_; }
  /// Where in `order` blocks of a group are that an admission used last.
  int Rank(int group, uint64_t admission) const { return rank_[group][Age(now_ - admission)]; }

  /// On the heap.
  uint64_t bytes() const {
    return records_.capacity() * sizeof(Record) + order_.capacity() * sizeof(Cell);
  }

  static uint64_t AgeBegin(int age);
  static int Age(uint64_t admissions);

 private:
  struct Record {
    int32_t tokens = 0;
    uint8_t turns = 0;
    bool waiting = false;  // was not continued yet
  };
  struct Count {
    double returns = 0, waited = 0;  // waited: sequences times admissions
    int64_t waiting = 0;
  };

  Record& At(uint64_t admission) { return records_[admission % kMost]; }
  const Record& At(uint64_t admission) const { return records_[admission % kMost]; }
  bool Remembered(uint64_t admission) const { return admission > 0 && now_ - admission < kMost; }
  void LearnEnd(int32_t tokens, int32_t reached, int32_t missed);
  /// The part of sequences of an age that is continued each admission, as estimated: of all, given
  /// that of the age before; and of a class.
  double HazardOfAll(int age, double before) const;
  double Hazard(int of_class, int age, double of_all) const;
  void Order();

  uint64_t now_ = 0;
  std::vector<Record> records_;  // ring
  std::array<std::array<Count, kAges>, kClasses> counts_;
  std::array<double, kTails> tails_known_ = {}, tails_reused_ = {};
  std::vector<Cell> order_;
  std::array<std::array<int, kAges>, kGroups> rank_ = {};
};

}  // namespace kvasir
