#!/bin/sh
# What the release build promises of its binary: position independent, relocations read-only and bound at the start, a stack that
# is not executable, stack protectors, and checked variants of the C library's functions.
#   tools/check_hardening.sh BINARY
set -eu
bad=
demand() { # WHAT TOOL-OUTPUT PATTERN
  echo "$2" | grep -q "$3" || { echo "$binary: $1" >&2; bad=1; }
}
binary=$1
header=$(readelf -hW "$binary") segments=$(readelf -lW "$binary") dynamic=$(readelf -dW "$binary") symbols=$(readelf --dyn-syms -W "$binary")
demand "is not position independent" "$header" 'Type: *DYN'
demand "has no read-only relocations" "$segments" 'GNU_RELRO'
demand "binds lazily" "$dynamic" 'BIND_NOW\|FLAGS.*NOW'
demand "has an executable stack" "$segments" 'GNU_STACK.* RW  *0x'
demand "has no stack protectors" "$symbols" '__stack_chk_fail'
demand "has no checked functions of the C library" "$symbols" '__[a-z]*_chk@'
[ -z "$bad" ]
