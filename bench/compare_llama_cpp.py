#!/usr/bin/env python3
"""Kvasir and llama.cpp on the default model, in turn, in one run: start time, prefill and decode rate,
resident memory, perplexity.

    python3 bench/compare_llama_cpp.py MODEL.gguf [--pairs 5] [--perplexity TEXT]

needs a built tree in build/ and, in the Python that runs it, `llama-cpp-python` (0.3.36, compiled
with clang). Prints medians over the pairs and their ratio. Each side runs in a process of its own.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
THREADS = len(os.sched_getaffinity(0))
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128

PEER = r'''
import json, math, sys, time
start = time.monotonic()
from llama_cpp import Llama
model, prompt_file, threads, output, window = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
imported = time.monotonic()
m = Llama(model, n_ctx=2048 if not window else window, n_batch=512 if not window else window, n_ubatch=512, n_threads=threads, n_threads_batch=threads, logits_all=bool(window), verbose=False, flash_attn=True)
text = open(prompt_file, "rb").read()
tokens = m.tokenize(text, add_bos=False, special=False)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if window:
    import numpy as np
    nll, scored = 0.0, 0
    for b in range(0, len(tokens) - window + 1, window):
        w = tokens[b:b + window]
        m.reset(); m.eval(w)
        l = np.array(m.scores[:window], dtype=np.float64)
        top = l.max(1, keepdims=True)
        lse = top[:, 0] + np.log(np.exp(l - top).sum(1))
        nll += (lse[:-1] - l[np.arange(window - 1), w[1:]]).sum(); scored += window - 1
    print(json.dumps({"perplexity": math.exp(nll / scored), "scored": scored}))
    sys.exit()
tokens = tokens[:512]
m.eval(tokens[:1])
first = time.monotonic() - imported
m.reset()
t = time.monotonic(); m.eval(tokens); prefill = time.monotonic() - t
last = m.sample(temp=0.0)
t = time.monotonic()
for _ in range(output):
    m.eval([last]); last = m.sample(temp=0.0)
decode = time.monotonic() - t
print(json.dumps({"start_s": first, "prefill_tok_s": len(tokens) / prefill, "decode_tok_s": output / decode, "resident_mib": resident() / 2**20}))
'''


def peer(model, text, window=0):
    out = subprocess.run([sys.executable, "-c", PEER, model, text, str(THREADS), str(OUTPUT_TOKENS), str(window)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(out.stdout)


def kvasir(model, prompt):
    # Start: from the process to the first token of a one-token prompt.
    begin = time.monotonic()
    subprocess.run([ROOT / "build/kvasir", "run", model, "--raw", "-p", "a", "-n", "1", "--json", "-c", "2048"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    start = time.monotonic() - begin
    with open(prompt) as text:
        out = subprocess.run([ROOT / "build/kvasir", "run", model, "--raw", "-n", str(OUTPUT_TOKENS + 1), "--ignore-eos", "--json", "-c", "2048"], stdin=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    r = json.loads(out.stdout)
    return {"start_s": start, "prefill_tok_s": r["prefill_tok_s"], "decode_tok_s": r["decode_tok_s"], "resident_mib": r["resident_bytes"] / 2**20}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--perplexity", metavar="TEXT")
    a = p.parse_args()
    text = "".join(f"Entry {i * 7919 % 1000}: the river carries {i} boats past the old mill. " for i in range(400))
    whole = subprocess.run([ROOT / "build/kvasir", "tokenize", a.model, "--ids", "-p", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    ids = whole.stdout.split()[:PROMPT_TOKENS]
    prompt = "/tmp/kvasir-compare-prompt.txt"
    with open(prompt, "wb") as out:
        out.write(subprocess.run([ROOT / "build/kvasir", "tokenize", a.model, "--decode", b",".join(ids)], stdout=subprocess.PIPE, check=True).stdout)
    ours, theirs = [], []
    for _ in range(a.pairs):
        ours.append(kvasir(a.model, prompt))
        theirs.append(peer(a.model, prompt))
    print(f"| {'':16} | {'Kvasir':>9} | {'llama.cpp':>9} | {'ratio':>6} |\n| --- | ---: | ---: | ---: |")
    for key in ours[0]:
        o, t = (statistics.median(r[key] for r in side) for side in (ours, theirs))
        print(f"| {key:16} | {o:9.3f} | {t:9.3f} | {o / t:6.2f} |")
    if a.perplexity:
        out = subprocess.run([ROOT / "build/kvasir", "perplexity", a.model, "-f", a.perplexity, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        o, t = json.loads(out.stdout), peer(a.model, a.perplexity, 1024)
        assert o["scored"] == t["scored"], (o, t)
        print(f"| {'perplexity':16} | {o['perplexity']:9.4f} | {t['perplexity']:9.4f} | {o['perplexity'] / t['perplexity']:6.4f} |")


main()
