#!/bin/sh
# clang-tidy over the sources that changed since a commit (default: all), two at a time.
#   tools/check_tidy.sh [SINCE]
set -eu
cd "$(dirname "$0")/.."
cmake --preset release > /dev/null
if [ $# -gt 0 ]; then files=$(git diff --name-only --diff-filter=d "$1" -- 'src/*.cc' ':!src/*_test.cc'); else files=$(find src -name '*.cc' ! -name '*_test.cc'); fi
# Kernels of other processors are not in the compilation database.
echo "$files" | tr ' ' '\n' | grep -v -E '_neon\.cc$|^$' |
  xargs -P 2 -n 4 clang-tidy -p build --quiet --extra-arg=-Wno-unknown-warning-option 2> /dev/null
