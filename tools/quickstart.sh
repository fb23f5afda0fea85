#!/bin/sh
# Installs what is needed, builds, fetches the default model, and answers a question.
#   tools/quickstart.sh [QUESTION]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/tools/install-deps.sh"
"$root/tools/build.sh" quick
"$root/tools/fetch-model.sh"
exec "$root/build/kvasir" run -p "${1:-What is the capital of France?}"
