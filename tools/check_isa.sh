#!/bin/sh
# Fails if code outside of an instruction set's own files uses its registers, so that the program
# would stop with an illegal instruction on a machine without it.
#   tools/check_isa.sh BUILD
set -eu
build=$1
[ "$(uname -m)" = x86_64 ] || exit 0
bad=0
find "$build/src" -name '*.o' | grep -v -E '_(avx2|avxvnni|avx512|avx512bf16|amx)(_test)?\.cc\.o$' > "$build/isa_objects.txt"
while read -r object; do
  if objdump -d --no-show-raw-insn "$object" | grep -q -E '%[yz]mm|%tmm'; then
    echo "check_isa: $object uses vector registers that not every machine has" >&2
    bad=1
  fi
done < "$build/isa_objects.txt"
# And no function that the linker may merge with another file's copy is compiled with the flags of an
# instruction set.
find "$build/src" -name '*.o' | grep -E '_(avx2|avxvnni|avx512|avx512bf16|amx)(_test)?\.cc\.o$' > "$build/isa_objects.txt"
while read -r object; do
  weak=$(nm --defined-only -C "$object" | grep -E ' [WVu] ' || true)
  if [ -n "$weak" ]; then
    echo "check_isa: $object defines what other files may share:" >&2
    echo "$weak" >&2
    bad=1
  fi
done < "$build/isa_objects.txt"
exit $bad
