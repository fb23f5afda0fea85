#!/bin/sh
# Fuzzes every parser of bytes that others wrote, and the KV manager and the scheduler, each for some
# seconds, from the corpus in fuzz/corpus and seeds. With 0 seconds it only replays them. What is
# found is left in ${TMPDIR:-/tmp}/kvasir-fuzz/TARGET, and the exit code is 1. KVASIR_FUZZ_SEED
# makes the order of attempts the same each time.
#   tools/fuzz.sh SECONDS [TARGET...]
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
all=$(for file in fuzz/fuzz_*.cc; do basename "$file" .cc | cut -d_ -f2; done)
command -v clang++-14 > /dev/null || tools/install-deps.sh --dev
tools/build.sh fuzz
work=${TMPDIR:-/tmp}/kvasir-fuzz
mkdir -p "$work"
fuzz/make_seeds.py "$work/seeds"
bad=
for target in ${*:-$all}; do
  mkdir -p "$work/$target" "fuzz/corpus/$target"
  case $target in
    body | batch) dict=json ;;
    http) dict=http ;;
    template) dict=jinja ;;
    keys | config) dict=toml ;;
    *) dict= ;;
  esac
  # Operations as bytes: more of them find nothing else, and each is checked against all that live.
  flags=
  case $target in
    kv | engine) flags="-max_len=160 -entropic=0" ;;
    body) flags=-detect_leaks=0 ;; # one engine for all inputs: what it keeps is no leak, and looking for one takes most of the time
  esac
  limit="-max_total_time=$seconds"
  [ "$seconds" != 0 ] || limit="-runs=0"
  # shellcheck disable=SC2086
  if build-fuzz/fuzz_$target $limit $flags -seed="${KVASIR_FUZZ_SEED:-0}" -timeout=20 -rss_limit_mb=3000 ${dict:+-dict=fuzz/dict/$dict.dict} -artifact_prefix="$work/$target/" \
    "$work/$target" "fuzz/corpus/$target" "$work/seeds/$target" > "$work/$target.log" 2>&1; then
    echo "$target: $(tail -1 "$work/$target.log")"
  else
    bad="$bad $target"
    echo "$target: FOUND SOMETHING, see $work/$target.log"
    tail -15 "$work/$target.log"
  fi
done
[ -z "$bad" ] || { echo "findings in:$bad"; exit 1; }
