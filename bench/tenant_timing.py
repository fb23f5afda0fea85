#!/usr/bin/env python3
"""Can a tenant feel by the time of its own requests what others have cached?

    bench/tenant_timing.py [--model FILE.gguf] [--rounds N]

In each round a victim asks with a new random prompt, so that its keys are in the cache. Then four prompts come in random order: a
stranger (another salt) asks with the victim's prompt and with a fresh one, and a member of the victim's group does the same. The
times of both must differ for the group, which shows that the measurement sees a hit, and for the stranger be one distribution:
the z of Mann and Whitney's test within 3.
"""
import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))
from harness import PLAIN, Server, add_key  # noqa: E402

PROMPT_TOKENS = 256


def z_of(a, b):
    """Mann and Whitney's U of two samples as a z: 0 where neither tends to be larger. Times have no ties worth a correction."""
    ranks = {id_: rank for rank, (_, id_) in enumerate(sorted([(x, ("a", i)) for i, x in enumerate(a)] + [(x, ("b", i)) for i, x in enumerate(b)]), 1)}
    u = sum(ranks[("a", i)] for i in range(len(a))) - len(a) * (len(a) + 1) / 2
    mean = len(a) * len(b) / 2
    return (u - mean) / (len(a) * len(b) * (len(a) + len(b) + 1) / 12) ** 0.5


def measure(server, keys, rounds):
    """Seconds by (who, what)."""
    rng = random.Random(1)
    connections = {name: server.connect() for name in keys}
    prompt = lambda: [rng.randrange(100, 250) for _ in range(PROMPT_TOKENS)]

    def ask(who, tokens):
        begin = time.perf_counter()
        answer = server.post(PLAIN, {"prompt": tokens, "max_tokens": 1, "temperature": 0}, key=keys[who], connection=connections[who])
        seconds = time.perf_counter() - begin
        assert answer.status == 200, answer.body
        return seconds

    times = {}
    for _ in range(rounds):
        secret = prompt()
        ask("victim", secret)
        asked = [(who, what) for who in ("stranger", "member") for what in ("secret", "fresh")]
        rng.shuffle(asked)
        for who, what in asked:
            times.setdefault((who, what), []).append(ask(who, secret if what == "secret" else prompt()))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "tests" / "data" / "tiny" / "llama.gguf"))
    parser.add_argument("--rounds", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "keys.toml")
        add = lambda name, *flags: add_key(file, name, *flags)
        keys = {"victim": add("victim", "--group", "g"), "member": add("member", "--group", "g"), "stranger": add("stranger")}
        root = add("root", "--role", "operator")
        with Server("--keys", file, "--log-level", "warn", key=root, model=args.model, ctx=1024) as server:
            measure(server, keys, 20)  # warm
            times = measure(server, keys, args.rounds)
    z = {}
    print("| who asks | victim's prompt, median | fresh prompt, median | z |\n| --- | ---: | ---: | ---: |")
    for who in ("member", "stranger"):
        secret, fresh = times[(who, "secret")], times[(who, "fresh")]
        z[who] = z_of(secret, fresh)
        print(f"| {who} | {statistics.median(secret) * 1e3:.3f} ms | {statistics.median(fresh) * 1e3:.3f} ms | {z[who]:.2f} |")
    if z["member"] > -3:
        sys.exit("a hit in the own group cannot be seen: the measurement shows nothing")
    if abs(z["stranger"]) > 3:
        sys.exit("a stranger's times tell what another tenant has cached")


if __name__ == "__main__":
    main()
