#!/bin/sh
# Adds to fuzz/corpus what tools/fuzz.sh has collected since: for each target the fewest inputs, of at most 2 KiB, that reach the
# edges which the corpus does not reach yet.
#   tools/fuzz_corpus.sh [TARGET...]
set -eu
cd "$(dirname "$0")/.."
work=${TMPDIR:-/tmp}/kvasir-fuzz
for target in ${*:-$(for file in fuzz/fuzz_*.cc; do basename "$file" .cc | cut -d_ -f2; done)}; do
  mkdir -p "$work/$target" "fuzz/corpus/$target"
  build-fuzz/fuzz_"$target" -merge=1 -use_counters=0 -max_len=2048 -rss_limit_mb=3000 "fuzz/corpus/$target" "$work/$target" > "$work/$target-merge.log" 2>&1
  echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) files, $(du -sk "fuzz/corpus/$target" | cut -f1) KiB"
done
