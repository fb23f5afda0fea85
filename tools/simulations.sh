#!/bin/sh
# Random traffic with cancels, preemption, windows and failures against the scheduler and the KV manager, COUNT times with as many
# seeds: every invariant after every step, every token compared with what it would be without a cache. A million takes half an hour.
#   tools/simulations.sh COUNT
set -eu
cd "$(dirname "$0")/.."
KVASIR_SIMULATIONS=$1 exec build/sched_test --gtest_filter=Scheduler.RandomTrafficWithCancelsKeepsEveryInvariant
