#!/bin/sh
# install_test.sh BUILD COMPILER: installs BUILD into an empty folder, builds the example against it
# with find_package, and runs it on a tiny model.
set -eu
build=$1
compiler=$2
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake --install "$build" --prefix "$folder/usr" > /dev/null
cmake -S "$source/examples" -B "$folder/build" -DCMAKE_PREFIX_PATH="$folder/usr" -DCMAKE_CXX_COMPILER="$compiler" > /dev/null
cmake --build "$folder/build" > /dev/null
"$folder/build/eight_requests" "$source/tests/data/tiny/llama.gguf" > "$folder/out" || { cat "$folder/out"; exit 1; }
finished=$(grep -c "prompt tokens from the cache" "$folder/out")
[ "$finished" -eq 8 ] || { echo "$finished of 8 requests finished"; cat "$folder/out"; exit 1; }
"$folder/build/eight_requests" no-such-file 2> "$folder/error" && { echo "no-such-file was loaded"; exit 1; }
grep -q no-such-file "$folder/error"
