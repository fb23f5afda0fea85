#!/bin/sh
# Fails if clang-format would change a file.
set -eu
cd "$(dirname "$0")/.."
find src tests bench include -name '.?*' -prune -o '(' -name '*.cc' -o -name '*.h' ')' -print 2> /dev/null | xargs clang-format --dry-run -Werror
