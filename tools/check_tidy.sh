#!/bin/sh
# clang-tidy over all sources, several compiled as one (most of its time goes into headers of
# libraries), or over those that changed since a commit, one by one; two at a time.
#   tools/check_tidy.sh [SINCE]
set -eu
cd "$(dirname "$0")/.."
build=build-tidy
if [ $# -gt 0 ]; then
  checks=
  cmake --preset dev -B $build > /dev/null
  files=$(git diff --name-only --diff-filter=d "$1" -- 'src/*.cc' ':!src/*_test.cc')
else
  checks=--checks=-bugprone-suspicious-include # of the files that include several
  cmake --preset quick -B $build > /dev/null
  files=$(sed -n 's/^ *"file": "\(.*\)",\?$/\1/p' $build/compile_commands.json)
fi
ninja -C $build src/web/web_files.cc > /dev/null
# Kernels of other processors are not in the compilation database.
echo "$files" | tr ' ' '\n' | grep -v -E '_neon(dot)?\.cc$|^$' |
  xargs -r -P 2 -n 2 clang-tidy -p $build --quiet $checks --extra-arg=-Wno-unknown-warning-option 2> /dev/null
