#!/bin/sh
# Line coverage, by all tests but those that need the default model or a browser, of what reads what others wrote, of the KV cache
# and of the scheduler. Fails below 95 percent of all their lines. By hand; some twenty minutes.
#   tools/coverage.sh
set -eu
cd "$(dirname "$0")/.."
command -v gcovr > /dev/null || {
  as_root=
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  $as_root apt-get install -y -qq --no-install-recommends gcovr > /dev/null
}
tools/build.sh coverage
find build-coverage -name '*.gcda' -delete
ctest --preset coverage --output-on-failure > build-coverage/ctest.log 2>&1 || { tail -30 build-coverage/ctest.log; exit 1; }
gcovr --root . --exclude '.*_test\.cc' --exclude-throw-branches --gcov-ignore-parse-errors \
  --filter src/kv/ --filter src/sched/ --filter src/text/ --filter src/http/ --filter src/openai/ --filter 'src/model/gguf' \
  --filter 'src/tenant/key' --filter src/base/toml_text --filter src/sim/trace --filter src/app/settings --filter src/app/batch_job \
  --fail-under-line 95 build-coverage
