#!/usr/bin/env python3
"""Measures the server on this machine: throughput, no stalls, many connections, overhead, start.

    bench/server.py --model SMALL.gguf --large 1B.gguf [--out FILE.md] [--only NAME ...]

The load comes from the same machine, as it does for whoever serves on one. Figures are of one run each, but where
several are said.
"""
import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "server"))
from harness import BINARY, PLAIN, Server  # noqa: E402


def bench(server, *flags):
    out = subprocess.run([BINARY, "bench", "serve", "--url", f"http://{server.host}:{server.port}", "--json", *flags],
                         check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(out.stdout)


def throughput(args):
    """16 closed-loop clients, 512 shared and 256 own prompt tokens, 64 out; must: 700 output tokens/s."""
    with Server("--log-level", "warn", model=args.model, ctx=None) as server:
        runs = [bench(server, "--concurrency", "16", "--requests", "160", "--shared-tokens", "512", "--prompt-tokens", "256",
                      "--output-tokens", "64", "--bench-seed", str(i)) for i in range(3)]
    assert all(r["failed"] == 0 for r in runs)
    rates = sorted(r["output_throughput"] for r in runs)
    middle = sorted(runs, key=lambda r: r["output_throughput"])[1]
    return f"{rates[1]:.0f} output tokens/s ({rates[0]:.0f} to {rates[2]:.0f}), none failed; TTFT p99 {middle['p99_ttft_ms']:.0f} ms, ITL p99 {middle['p99_itl_ms']:.0f} ms"


class Reader(threading.Thread):
    """Reads a stream and notes when its tokens come."""

    def __init__(self, server, body):
        super().__init__()
        self.times, self.start_at = [], time.monotonic()
        self.stream = server.stream(PLAIN, body)
        self.start()

    def run(self):
        try:
            for chunk in self.stream:
                if chunk["choices"] and chunk["choices"][0]["logprobs"]:
                    self.times.append(time.monotonic())
        except (AssertionError, AttributeError, OSError, ValueError):
            pass  # closed on purpose


def gaps(readers, begin, end):
    out = []
    for r in readers:
        inside = [t for t in r.times if begin <= t <= end]
        out += [b - a for a, b in zip(inside, inside[1:])]
    return sorted(out)


def stalls(args):
    """1B shape, 4 streams decode, a prompt of 6,000 tokens arrives; must: ITL p99 2 x and most 3 x quiet, TTFT 8 s."""
    with Server("--log-level", "warn", model=args.large, ctx=8192, check_idle=False) as server:
        # Learns what steps cost here, as a server that has served has.
        server.complete([i % 500 + 1000 for i in range(2000)], 8)
        # With log probabilities every token has its chunk, also those of random weights that are no text.
        body = {"max_tokens": 4000, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        readers = [Reader(server, {**body, "prompt": [1000 + i] * 64}) for i in range(4)]
        time.sleep(10)
        quiet = gaps(readers, time.monotonic() - 8, time.monotonic())
        begin = time.monotonic()
        late = Reader(server, {**body, "prompt": [2000 + i * 7 % 900 for i in range(6000)], "max_tokens": 2})
        late.join()
        during = gaps(readers, begin, late.times[0])
        for r in readers:
            r.stream.close()
        at = lambda list_, part: list_[min(len(list_) - 1, int(part * len(list_)))]
        p50 = statistics.median(quiet)
        ms = lambda s: f"{s * 1e3:.0f}"
        return (f"quiet ITL p50 {ms(p50)}, p99 {ms(at(quiet, .99))}, most {ms(quiet[-1])} ms; while it is computed p50 {ms(at(during, .5))}, "
                f"p99 {ms(at(during, .99))} = {at(during, .99) / at(quiet, .99):.2f} x quiet p99, most {ms(during[-1])} ms = "
                f"{during[-1] / quiet[-1]:.2f} x quiet most; TTFT {late.times[0] - begin:.1f} s")


def connections(args):
    """1,000 open streams and 5,000 idle connections; must: no failure, 32 KiB for each idle one."""
    with Server("--max-waiting", "2000", "--log-level", "warn", model=args.model, ctx=2048) as server:
        ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        idle = []
        for i in range(5000):
            s = socket.create_connection((server.host, server.port))
            s.sendall(ask)
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            idle.append(s)
            if len(idle) == 1000:  # by then it has given back what starting took
                before = server.resident_kib()
        each = (server.resident_kib() - before) / 4000
        streams, begin = [], time.monotonic()
        for i in range(1000):
            s = socket.create_connection((server.host, server.port))
            body = json.dumps({"prompt": f"Stream {i}", "max_tokens": 16, "ignore_eos": True, "stream": True, "temperature": 0})
            s.sendall((f"POST {PLAIN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
            streams.append(s)
        whole = 0
        for s in streams:
            text = b""
            while part := s.recv(65536):
                text += part
            whole += text.count(b"[DONE]") == 1 and b"200 OK" in text[:20]
            s.close()
        took = time.monotonic() - begin
        for s in idle:
            s.sendall(ask)
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            s.close()
        return f"{each:.1f} KiB for each idle connection; {whole} of 1,000 streams whole, in {took:.0f} s; all idle ones still answered"


def overhead(args):
    """32 streams of the 1B shape against `bench batch`; must: 5% of the step's time."""
    rates = []
    for _ in range(2):
        with Server("--log-level", "warn", model=args.large, ctx=1024, check_idle=False) as server:
            row = bench(server, "--endpoint", "completions", "--concurrency", "32", "--requests", "32", "--prompt-tokens", "16",
                        "--output-tokens", "96")
            kv = server.kv()["steps"]
            steps = [s for s in kv if s["decode"] == 32]
            wall = (steps[-1]["t_ms"] - steps[0]["t_ms"]) / (len(steps) - 1)
            inside = statistics.mean(s["ms"] for s in steps[:-1])
        alone = json.loads(subprocess.run([BINARY, "bench", "batch", args.large, "--pp", "16", "--tg", "96", "-b", "32", "--ctx", "1024",
                                           "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout)["rows"][0]["tg_tok_s"]
        rates.append((32 / wall * 1e3, alone, 1 - inside / wall))
        del row
    served, alone, between = (statistics.mean(r[i] for r in rates) for i in range(3))
    return (f"{served:.0f} tokens/s served, {alone:.0f} without a server: {100 * (1 - served / alone):.1f}%; between steps "
            f"{100 * between:.1f}% of the time")


def looking(args):
    """16 streams decode, and somebody looks at the live view; must: 1% of the engine's time."""
    with Server("--log-level", "warn", model=args.model, ctx=8192, check_idle=False) as server:
        body = {"max_tokens": 8000, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        readers = [Reader(server, {**body, "prompt": [1000 + i] * 64}) for i in range(16)]
        time.sleep(3)

        def window(looks):
            """Milliseconds from step to step, and between two of them, over some seconds."""
            view = socket.create_connection((server.host, server.port))
            if looks:
                view.sendall(b"GET /v1/kv/stream?interval_ms=500 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                threading.Thread(target=lambda: [None for _ in iter(lambda: view.recv(1 << 20), b"")], daemon=True).start()
            time.sleep(4)
            steps = server.kv()["steps"]
            view.shutdown(socket.SHUT_RDWR)
            wall = (steps[-1]["t_ms"] - steps[0]["t_ms"]) / (len(steps) - 1)
            return wall, wall - statistics.mean(s["ms"] for s in steps[:-1])

        # Steps grow with the context: in this order both kinds grow alike.
        order = [False, True, True, False] * 4
        seen = [window(looks) for looks in order]
        for r in readers:
            r.stream.close()
    mean = lambda looks, i: statistics.mean(s[i] for s, l in zip(seen, order) if l == looks)
    wall, between = mean(False, 0), mean(True, 1) - mean(False, 1)
    return (f"a step of {wall:.1f} ms takes {100 * (mean(True, 0) / wall - 1):+.1f}% longer; between two steps {between * 1e3:+.0f} us = "
            f"{100 * between / wall:.2f}% of it")


def start(args):
    """From exec to /health 200; must: 0.3 s."""
    times = []
    for _ in range(7):
        begin = time.monotonic()
        server = Server("--log-level", "warn", model=args.model, ctx=None, wait=False)
        server.wait_ready()
        assert server.get("/health").status == 200
        times.append(time.monotonic() - begin)
        server.end()
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--large", required=True)
    parser.add_argument("--out")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    rows = []
    for measure in (start, throughput, stalls, connections, overhead, looking):
        if args.only and measure.__name__ not in args.only:
            continue
        result = measure(args)
        print(f"{measure.__doc__}\n    {result}", flush=True)
        rows.append(f"| {measure.__doc__} | {result} |")
    if args.out:
        cpu = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
        pathlib.Path(args.out).write_text(f"# The server\n\n{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} cores.\n\n    bench/server.py --model SMALL.gguf "
                                          "--large 1B.gguf\n\n| | measured |\n| --- | --- |\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
