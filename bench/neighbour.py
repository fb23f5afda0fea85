#!/usr/bin/env python3
"""Prefill and decode beside a program that computes without end, in turn with runs alone.

    bench/neighbour.py [MODEL] [--kvasir BINARY] [--pairs N] [--flags 'FLAGS of bench batch']

The neighbour is where the system puts it, or on the first core or the last, each of which has a thread that stays there.
One that takes half of one core of two leaves 75% of the machine.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cores():
    """A processor of each core that may be used."""
    first = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else cpu, cpu)
    return list(first.values())


def measure(a, cpu):
    """Tokens/s of prefill and decode; `cpu`: None alone, "any", or the neighbour's processor."""
    neighbour = None
    if cpu is not None:
        where = [] if cpu == "any" else ["taskset", "-c", str(cpu)]
        neighbour = subprocess.Popen([*where, "sh", "-c", "while :; do :; done"])
    try:
        out = subprocess.run([a.kvasir, "bench", "batch", *a.model, *shlex.split(a.flags), "--json"], check=True, stdout=subprocess.PIPE)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()
    row = json.loads(out.stdout)["rows"][0]
    return row["pp_tok_s"], row["tg_tok_s"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="*", help="a GGUF file (default: the default model)")
    p.add_argument("--kvasir", default=ROOT / "build/kvasir")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--flags", default="--pp 512 --tg 128 -b 1")
    a = p.parse_args()
    cpus = cores()
    kinds = {"alone": None, "beside one anywhere": "any", "beside one on the first core": cpus[0], "beside one on the last core": cpus[-1]}
    rates = {kind: [] for kind in kinds}
    for _ in range(a.pairs):
        for kind, cpu in kinds.items(): rates[kind].append(measure(a, cpu))
    alone = [statistics.median(column) for column in zip(*rates["alone"])]
    print(f"{len(cpus)} cores; medians of {a.pairs} runs in turn, tokens/s\n\n| | prefill | | decode | |\n| --- | ---: | ---: | ---: | ---: |")
    for kind, values in rates.items():
        cells = []
        for median, of in zip((statistics.median(column) for column in zip(*values)), alone):
            cells += [f"{median:.1f}", f"{100 * median / of:.0f}%"]
        print("| " + " | ".join([kind, *cells]) + " |")


if __name__ == "__main__": main()
