#!/bin/sh
# Installs what is needed, builds, and runs all tests and checks.
#   tools/test.sh
set -eu
cd "$(dirname "$0")/.."
tools/install-deps.sh --dev
tools/fetch-model.sh
export KVASIR_REQUIRE_MODEL=1 KVASIR_REQUIRE_BROWSER=1

tools/check_format.sh
tools/check_includes.py
tools/check_types.py
tools/build.sh release
tools/check_isa.sh build
tools/check_hardening.sh build/kvasir
ctest --preset release
tools/test_clients.sh 50
tools/check_tidy.sh
# What reads files and texts that others wrote, again with the sanitizers.
tools/build.sh asan
ctest --preset asan
# And whatever bytes may come.
KVASIR_FUZZ_SEED=1 tools/fuzz.sh 3
