#pragma once

#include "base/check.h"
#include "sched/step.h"

namespace kvasir {

/// Whose rows an executor keeps between their layers, and after how many of them (layered prefill).
struct HeldRows {
  SequenceId sequence = 0;
  int32_t first_pos = 0, rows = 0, layers = 0;

  /// The rows of a layered slice pass its layers. CHECKs that a slice that goes on is the one whose
  /// rows are held: else the plan is wrong.
  void Pass(const SeqSlice& slice) {
    if (slice.first_layer > 0) {
      CHECK_EQ(slice.sequence, sequence);
      CHECK_EQ(slice.first_pos, first_pos);
      CHECK_EQ(slice.count, rows);
      CHECK_EQ(slice.first_layer, layers);
    }
    *this = {slice.sequence, slice.first_pos, slice.count, slice.first_layer + slice.layers};
  }
};

}  // namespace kvasir
