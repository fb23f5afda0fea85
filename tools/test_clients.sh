#!/bin/sh
# The API against clients that others wrote: the official Python package, curl, and schemathesis with
# cases made from docs/openapi.yaml: no 500, no crash, answers as described.
#   tools/test_clients.sh [CASES]     schemathesis cases of each endpoint (default 100)
set -eu
cd "$(dirname "$0")/.."
cases=${1:-100}
binary=${KVASIR_BINARY:-build/kvasir}
python=.venv-clients/bin/python
if ! cmp -s tests/server/requirements.txt .venv-clients/requirements.txt; then
  python3 -m venv .venv-clients
  $python -m pip install --quiet --disable-pip-version-check -r tests/server/requirements.txt
  cp tests/server/requirements.txt .venv-clients/
fi
(cd tests/server && PYTHONDONTWRITEBYTECODE=1 KVASIR_BINARY="$(realpath "$OLDPWD/$binary")" "../../$python" -W ignore -m unittest test_clients)

folder=$(mktemp -d)
XDG_CONFIG_HOME=$folder "$binary" serve tests/data/tiny/llama.gguf --ctx 1024 --port 0 --log-level warn > "$folder/out" 2> "$folder/err" &
server=$!
trap 'kill $server 2> /dev/null || true; rm -rf "$folder"' EXIT
while ! grep -q listening "$folder/out"; do
  kill -0 $server || { cat "$folder/err"; exit 1; }
  sleep 0.05
done
url=$(sed -n 's/listening on //p' "$folder/out")
curl --silent --fail "$url/v1/chat/completions" -H 'Content-Type: application/json' \
  -d '{"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"stream":true}' | grep -q '^data: \[DONE\]'
# The live view never ends by itself.
.venv-clients/bin/schemathesis run docs/openapi.yaml --exclude-path /v1/kv/stream --url "$url" --max-examples "$cases" --workers 2 --continue-on-failure \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --request-timeout 60 --generation-database none
kill -0 $server || { echo "the server is gone"; cat "$folder/err"; exit 1; }
curl --silent --fail "$url/v1/kv" | python3 -c 'import json, sys; kv = json.load(sys.stdin); assert not kv["sequences"], kv["sequences"]'
