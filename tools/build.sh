#!/bin/sh
# Builds a CMake preset quietly: tools/build.sh release
set -eu
cd "$(dirname "$0")/.."
cmake --preset "$1" > /dev/null
cmake --build --preset "$1" -- --quiet
