#!/bin/sh
# Installs from Debian what Kvasir is built with, if it is not there yet.
#   tools/install-deps.sh [--dev]     --dev: also what the tests and checks need
set -eu
packages="g++ cmake ninja-build pkg-config python3 python3-pip ca-certificates
  libfmt-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev libpcre2-dev libutf8proc-dev
  libedit-dev libhwy-dev libboost1.81-dev libssl-dev libspdlog-dev libseccomp-dev"
if [ "${1:-}" = --dev ]; then
  packages="$packages libgtest-dev libgmock-dev clang-format clang-tidy binutils chromium
    clang curl openssl python3-venv"
fi

missing=
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "install-deps: run as root, or install sudo, for:$missing" >&2; exit 1; }
  as_root=sudo
fi
echo "installing:$missing" >&2
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
