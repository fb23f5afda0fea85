#!/usr/bin/env python3
"""Makes tests/data/dequant/NAME.bin: random blocks of every GGUF format and their f32 values.

Needs numpy and gguf from PyPI. Reproducible: python3 tools/make_dequant_golden.py
File: uint32 ggml type, uint32 blocks, uint32 elements a block, uint32 bytes a block, the blocks, the values.
"""
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "dequant"
# Byte offsets of the half-precision fields, which random bytes would make NaN or huge.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82],
    T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0],
}
# Scales that are easy to get wrong: zero, negative, subnormal, the largest and smallest.
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x3c00, 0xbc00], np.uint16)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261123)
    for kind, fields in HALVES.items():
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = 24 if elements == 256 else 64
        data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for field in fields:
            scales = rng.normal(0, 0.02, blocks).astype(np.float16).view(np.uint16)
            scales[: len(EDGES)] = np.roll(EDGES, field)
            data[:, field : field + 2] = scales.view(np.uint8).reshape(blocks, 2)
        with np.errstate(over="ignore"):
            values = dequantize(data.reshape(1, -1), kind).astype(np.float32).reshape(-1)
        assert values.size == blocks * elements
        with open(OUT / f"{kind.name.lower()}.bin", "wb") as f:
            f.write(struct.pack("<4I", kind.value, blocks, elements, size))
            f.write(data.tobytes())
            f.write(values.astype("<f4").tobytes())
        print(kind.name, values.min(), values.max())


if __name__ == "__main__":
    main()
