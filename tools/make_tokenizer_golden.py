#!/usr/bin/env python3
"""Strings and their tokens by llama.cpp, for the tokenizer test.

    python3 tools/make_tokenizer_golden.py MODEL.gguf COUNT > golden.txt

needs `llama-cpp-python` from PyPI. Lines: 1 if special tokens are parsed else 0, the text's bytes in
hex ("-": none), the ids with commas.
"""
import random
import sys

from golden_strings import SPECIAL, agreed, text
from llama_cpp import Llama


def main():
    model = Llama(sys.argv[1], vocab_only=True, verbose=False)
    r = random.Random(20261124)
    seen = set()
    while len(seen) < int(sys.argv[2]):
        t = text(r)
        special = r.random() < 0.15
        if special:
            t = t[:len(t) // 2] + r.choice(SPECIAL).encode() + t[len(t) // 2:]
            if not agreed(t): continue
        if (t, special) in seen: continue
        seen.add((t, special))
        ids = model.tokenize(t, add_bos=False, special=special)
        print(int(special), t.hex() or "-", ",".join(map(str, ids)) or "-")


main()
