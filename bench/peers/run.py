#!/usr/bin/env python3
"""Kvasir and its peers in turn on the same shapes: one table with medians, spreads and ratios.

    python3 bench/peers/run.py                                  everything: two to three hours
    python3 bench/peers/run.py --rows 'p512,d1' --pairs 3       a part of it
    python3 bench/peers/run.py --install-only                   environments and models only

See bench/peers/README.md.
"""
import argparse
import contextlib
import datetime
import fnmatch
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

import install
import report
from rows import OPENVINO, ROWS, candidates
from sides import Kvasir, OtherLoad, Peer, figure

ROOT = install.ROOT
BUSY_PCT, ATTEMPTS = 8.0, 4  # more of others' load than this: measured again, so often


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(command):
    """Holds a command such as `flock FILE` that keeps others on the machine from computing meanwhile."""
    if not command:
        yield
        return
    holder = subprocess.Popen([*shlex.split(command), "sh", "-c", "echo held; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if holder.stdout.readline() != b"held\n":
        holder.communicate()
        sys.exit(f"'{command}' did not give the machine (exit {holder.returncode}): nothing more is measured")
    try:
        yield
    finally:
        holder.communicate()


def quiet(peers, measure):
    """The reply of `measure`, taken while others were quiet if they ever are."""
    best = None
    for _ in range(ATTEMPTS):
        load = OtherLoad(peers)
        reply = measure()
        reply["others_pct"] = round(load.percent(), 1)
        if best is None or reply["others_pct"] < best["others_pct"]: best = reply
        if best["others_pct"] <= BUSY_PCT: break
    return best


def better(row, a, b):
    return a > b if row.metric in ("prefill", "decode") else a < b


def choose(row, name, peer, options, hold):
    """The best settings, by the better of two runs each (the first one warms up), or by one of a long prompt."""
    tried, best = [], None
    for settings in options if len(options) > 1 else []:
        try:
            with hold():
                values = [figure(row, quiet([peer], lambda: peer.measure(row, settings))) for _ in range(2 if row.pp <= 2048 else 1)]
                value = max(values) if better(row, 1, 0) else min(values)
        except RuntimeError as e:
            say(f"  {name} {settings}: {e}")
            if peer.process.poll() is not None: raise
            continue
        say(f"  {name} {settings}: {value:.1f}")
        tried.append({"settings": settings, "value": value})
        if best is None or better(row, value, best[1]): best = (settings, value)
    if not best and len(options) > 1: raise RuntimeError(f"{name} ran with no setting")
    chosen = best[0] if best else options[0]
    with hold(): peer.measure(row, chosen)  # warm again, since others ran in between
    return chosen, tried


def summary(replies, row):
    values = [figure(row, r) for r in replies]
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "values": values,
            "others_pct": [r["others_pct"] for r in replies]}


def run_row(row, a, known):
    kvasir = Kvasir(a.kvasir, a.threads)
    model = install.model(row.model, a.models)
    flags = a.flags_of(row)
    names = [n for n in row.peers if n in a.peers]
    peers = {n: Peer(n, row.build, install.model("1b-openvino-int4", a.models) if n == OPENVINO else model) for n in names}
    out = {"name": row.name, "title": row.title, "unit": row.unit(), "must": row.must, "aim": row.aim, "kvasir_flags": flags, "sides": {}, "settings": {}, "tried": {}}
    try:
        for n in names:
            options = [known[n]] if n in known else candidates(n, row, a.threads)
            out["settings"][n], out["tried"][n] = choose(row, n, peers[n], options, lambda: alone(a.alone))
        replies = {n: [] for n in ["Kvasir", *names]}
        every = list(peers.values())
        for i in range(a.pairs):
            with alone(a.alone):
                if i == 0: out["probes_before"] = kvasir.probes(row, a.threads)
                if not a.peers_only: replies["Kvasir"].append(quiet(every, lambda: kvasir.measure(row, model, flags)))
                for n in names: replies[n].append(quiet(every, lambda: peers[n].measure(row, out["settings"][n])))
                if i == a.pairs - 1: out["probes_after"] = kvasir.probes(row, a.threads)
    finally:
        for p in peers.values(): p.close()
    for n, r in replies.items():
        if r: out["sides"][n] = summary(r, row)
    ours = replies["Kvasir"]
    limit = {"prefill": "pp_limit_pct", "decode": "tg_limit_pct"}.get(row.metric)
    if ours and limit: out["limit_pct"] = statistics.median(r[limit] for r in ours)
    if ours and row.metric == "again": out["steps"] = statistics.median(r["again_s"] / (r["tg_s"] / row.tg) for r in ours)
    return out


def run_gain(row, a):
    """All threads against one, Kvasir's and the probe's own."""
    kvasir, model = Kvasir(a.kvasir, a.threads), install.model(row.model, a.models)
    gains, probes = [], []
    for _ in range(a.pairs):
        with alone(a.alone):
            one, all_ = (quiet([], lambda: kvasir.measure(row, model, a.flags_of(row), t))["pp_tok_s"] for t in (1, a.threads))
            one_probe, all_probe = (kvasir.probes(row, t)["int8_gops"] for t in (1, a.threads))
        gains.append(all_ / one)
        probes.append(all_probe / one_probe)
    gain = statistics.median(gains)
    return {"name": row.name, "title": row.title, "unit": "x", "must": row.must, "aim": row.aim, "settings": {}, "tried": {}, "probe_gain": statistics.median(probes),
            "gain_pct": 100 * gain / statistics.median(probes), "sides": {"Kvasir": {"median": gain, "least": min(gains), "most": max(gains), "values": gains}}}


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kvasir", default=ROOT / "build/kvasir", help="the binary (default: build/kvasir)")
    p.add_argument("--rows", default="*", help="names or patterns, separated by commas: " + ", ".join(r.name for r in ROWS))
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--peers", default="llama.cpp,OpenVINO", help="of llama.cpp, OpenVINO; empty: Kvasir alone")
    p.add_argument("--peers-only", action="store_true", help="without Kvasir")
    p.add_argument("--kvasir-flags", action="append", default=[], metavar="ROW=FLAGS", help="more flags for Kvasir in the rows of a pattern, such as 'faster-*=--fast'; the faster rows run only with some")
    p.add_argument("--settings", metavar="FILE.json", help="the peers' best settings from an earlier result instead of a search")
    p.add_argument("--models", type=pathlib.Path, default=install.HERE / ".models")
    p.add_argument("--alone", metavar="COMMAND", help="a prefix such as 'flock FILE' that gives its command the machine alone; held for a pair at a time")
    p.add_argument("--out", type=pathlib.Path, help="results without suffix (default: bench/results/DATE-peers)")
    p.add_argument("--install-only", action="store_true")
    a = p.parse_args()
    a.peers = [n for n in a.peers.split(",") if n]
    more = [f.split("=", 1) for f in a.kvasir_flags]
    a.flags_of = lambda row: [w for pattern, flags in more if fnmatch.fnmatch(row.name, pattern) for w in shlex.split(flags)]
    patterns = a.rows.split(",")
    a.rows = [r for r in ROWS if any(fnmatch.fnmatch(r.name, x) for x in patterns) and (not r.flags_needed or a.flags_of(r))]
    if not a.rows: p.error("no row has such a name, or the faster rows lack flags (--kvasir-flags)")
    if a.out is None: a.out = ROOT / f"bench/results/{datetime.date.today()}-peers"
    return a


def main():
    a = parse()
    install.install("native", openvino=OPENVINO in a.peers)
    for build in {r.build for r in a.rows if r.peers} - {"native"}: install.install(build)
    for name in {r.model for r in a.rows} | ({"1b-openvino-int4"} if OPENVINO in a.peers else set()): install.model(name, a.models)
    if a.install_only: return
    known = {}
    if a.settings: known = {r["name"]: r["settings"] for r in json.loads(pathlib.Path(a.settings).read_text())["rows"]}
    result = {"about": report.about(a), "rows": []}
    for row in a.rows:
        say(row.title)
        try:
            result["rows"].append(run_gain(row, a) if row.metric == "gain" else run_row(row, a, known.get(row.name, {})))
        except RuntimeError as e:
            say(f"  {row.name} left out: {e}")
            continue
        say("  " + report.one_line(result["rows"][-1]))
        report.write(a.out, result)  # after each row, so that a run cut short has its rows


if __name__ == "__main__": main()
