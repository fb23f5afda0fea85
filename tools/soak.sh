#!/bin/sh
# A soak test: see tests/server/soak.py. MODEL=FILE.gguf takes another model than the tiny one, KV=SIZE another pool.
#   tools/soak.sh MINUTES
set -eu
cd "$(dirname "$0")/../tests/server"
export PYTHONDONTWRITEBYTECODE=1
exec python3 -W ignore soak.py "$1"
