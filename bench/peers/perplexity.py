#!/usr/bin/env python3
"""Perplexity of Kvasir and of llama.cpp on the same tokens of the same file.

    python3 bench/peers/perplexity.py MODEL.gguf TEXT [--kvasir build/kvasir] [--kvasir-flags ...]

Windows of 1,024 tokens without overlap or BOS, all but the first token of each scored. llama.cpp (of the
environment that run.py installs) runs with flash attention on and off.
"""
import argparse
import json
import shlex
import subprocess
import sys

import install

WINDOW = 1024
PEER = r'''
import json, math, sys
import numpy as np
from llama_cpp import Llama
model, text, window, flash = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"
m = Llama(model, n_ctx=window, n_batch=window, n_ubatch=512, logits_all=True, verbose=False, flash_attn=flash)
tokens = m.tokenize(open(text, "rb").read(), add_bos=False, special=False)
nll, scored = 0.0, 0
for b in range(0, len(tokens) - window + 1, window):
    w = tokens[b:b + window]
    m.reset()
    m.eval(w)
    l = np.array(m.scores[:window], dtype=np.float64)
    top = l.max(1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(l - top).sum(1))
    nll += (lse[:-1] - l[np.arange(window - 1), w[1:]]).sum()
    scored += window - 1
print(json.dumps({"perplexity": math.exp(nll / scored), "scored": scored}))
'''


def output(command):
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--kvasir", default=install.ROOT / "build/kvasir")
    p.add_argument("--kvasir-flags", default="", help="more flags of `kvasir perplexity`")
    a = p.parse_args()
    install.install("native")
    sides = {"Kvasir": output([a.kvasir, "perplexity", a.model, "-f", a.text, "--json", *shlex.split(a.kvasir_flags)])}
    for flash, name in (("1", "llama.cpp, flash attention"), ("0", "llama.cpp, without")):
        sides[name] = output([install.python("native"), "-c", PEER, a.model, a.text, str(WINDOW), flash])
    if len({s["scored"] for s in sides.values()}) > 1: sys.exit(f"they scored different tokens: {sides}")
    for name, s in sides.items(): print(f"{name:28} {s['perplexity']:10.4f}   {s['scored']} tokens, {sides['Kvasir']['perplexity'] / s['perplexity']:.4f} x")


if __name__ == "__main__": main()
