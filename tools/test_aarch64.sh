#!/bin/sh
# Cross-compiles for AArch64 and runs the kernels' and the tiny models' tests under emulation. Slow, so
# by hand. Installs the cross compiler, the emulator and the libraries for arm64 from Debian.
set -eu
cd "$(dirname "$0")/.."
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
libraries="libfmt-dev:arm64 libpcre2-dev:arm64 libutf8proc-dev:arm64 libedit-dev:arm64 libhwy-dev:arm64 libseccomp-dev:arm64 libssl-dev:arm64 libspdlog-dev:arm64 libgtest-dev:arm64 libgmock-dev:arm64"
if ! dpkg-query -W libhwy-dev:arm64 libssl-dev:arm64 g++-aarch64-linux-gnu qemu-user > /dev/null 2>&1; then
  $as_root dpkg --add-architecture arm64
  $as_root apt-get update -qq
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    g++-aarch64-linux-gnu qemu-user $libraries > /dev/null
fi
cmake -S . -B build-aarch64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake > /dev/null
tests="base_test tensor_test kv_test cpu_test text_test sample_test tiny_models_test engine_test"
# shellcheck disable=SC2086
cmake --build build-aarch64 -- --quiet $tests

# Some kernels and versions of the emulator do not get threads going; then all that needs none is run.
emulate="qemu-aarch64 -L /usr/aarch64-linux-gnu"
without=
if ! timeout 20 $emulate build-aarch64/base_test --gtest_filter='ThreadPool.Ends*' > /dev/null 2>&1; then
  echo "threads do not work under this emulator: tests that need them are left out" >&2
  export KVASIR_TEST_ONE_THREAD=1
  without='-ThreadPool.*:*Threads:*DeathTest*:*Death*'
fi
for test in $tests; do
  $emulate "build-aarch64/$test" --gtest_brief=1 --gtest_filter="*$without"
done
