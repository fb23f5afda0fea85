#pragma once

#include "base/clock.h"
#include "base/result.h"

namespace kvasir {

/// GB/s (1e9 bytes) at which `threads` threads together read a buffer larger than the caches: the
/// limit of decoding, which reads every weight once a token. Best of a few passes over 512 MiB.
Result<double> ReadBandwidthProbe(int threads, const Clock* clock);

}  // namespace kvasir
