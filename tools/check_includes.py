#!/usr/bin/env python3
"""Fails if a folder of src/ includes another that is not before it in the order of layers, or if a
folder includes something it does not link."""
import pathlib
import re
import sys

# Each folder may include those left of it, and itself.
ORDER = ["base", "tensor", "text", "kv", "sample", "sched", "backend", "model", "exec", "engine", "sim", "api", "openai", "http", "tenant", "metrics", "web", "server", "loadgen", "library", "app"]
# Nearer limits, where the order alone would allow more than the design does.
ALLOWED = {
    "base": [],
    "tensor": ["base"],
    "text": ["base"],
    "kv": ["base"],
    "sample": ["base"],
    "sched": ["base", "kv", "sample"],
    "backend": ["base", "tensor", "kv"],
    "model": ["base", "tensor", "text", "kv", "backend"],
    "exec": ["base", "tensor", "kv", "sample", "sched", "backend", "model"],
    "engine": ["base", "text", "kv", "sample", "sched"],
    # The simulator brings its own clock and executor: never a model or a backend.
    "sim": ["base", "kv", "sample", "sched", "engine"],
    "api": ["base", "text", "kv", "sample", "sched", "backend", "model", "exec", "engine"],
    "openai": ["base", "text", "sample", "engine", "api"],
    # HTTP, keys and counters know nothing of models; the server puts them together.
    "http": ["base"],
    "tenant": ["base"],
    "metrics": ["base"],
    "web": [],
    "server": ["base", "text", "kv", "sched", "engine", "api", "openai", "http", "tenant", "metrics", "web"],
    "loadgen": ["base", "sim"],
    "library": ["base", "text", "engine", "api"],
    "app": ORDER,
}

root = pathlib.Path(__file__).resolve().parent.parent / "src"
wrong = 0
for path in sorted(root.rglob("*.cc")) + sorted(root.rglob("*.h")):
    folder = path.relative_to(root).parts[0]
    if folder not in ALLOWED:
        print(f"{path}: the folder {folder} has no place in the order of layers")
        wrong += 1
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'#include "([a-z_]+)/', line)
        if not match or match[1] in (folder, "kvasir") or match[1] in ALLOWED[folder]:
            continue
        print(f"{path}:{number}: {folder} may not include {match[1]}")
        wrong += 1
sys.exit(1 if wrong else 0)
