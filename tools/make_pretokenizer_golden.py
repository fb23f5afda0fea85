#!/usr/bin/env python3
"""How each pre-tokenizer cuts strings, by the PyPI package `regex` and the patterns as their makers
published them.

    python3 tools/make_pretokenizer_golden.py COUNT > golden.txt

Lines: name, the text's bytes in hex, the words' lengths in bytes with commas.
"""
import random
import sys

import regex
from golden_strings import text

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Each name's patterns are applied one after the other, each to the pieces of the one before.
PATTERNS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}|[^\p{N}]+", GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")],
    "tekken": [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
               r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
}


def cut(patterns, t):
    pieces = [t]
    for p in patterns:
        pieces = [m for piece in pieces for m in regex.findall(p, piece)]
    assert "".join(pieces) == t
    return pieces


def main():
    r = random.Random(7)
    for _ in range(int(sys.argv[1])):
        while True:
            b = text(r)
            try: t = b.decode()
            except UnicodeDecodeError: continue
            if t: break
        for name, patterns in PATTERNS.items():
            print(name, t.encode().hex(), ",".join(str(len(p.encode())) for p in cut(patterns, t)))


main()
