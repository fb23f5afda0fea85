#!/bin/sh
# Compares the tokenizer with llama.cpp's on many strings.
#   tools/check_tokenizer.sh MODEL.gguf [COUNT]
# needs python3 with llama-cpp-python (set PYTHON to choose one) and a built tree in build/.
set -eu
model=$1
count=${2:-25000}
root=$(cd "$(dirname "$0")/.." && pwd)
golden=$(mktemp)
trap 'rm -f "$golden"' EXIT
"${PYTHON:-python3}" "$root/tools/make_tokenizer_golden.py" "$model" "$count" > "$golden" 2> /dev/null
KVASIR_GOLDEN_MODEL=$model KVASIR_GOLDEN_TOKENS=$golden \
  "$root/build/tokenizer_golden_test" --gtest_filter='*ALargerFile*'
