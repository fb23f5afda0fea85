"""Kvasir and the peers, each behind the same call: measure(row, settings) gives the row's figure."""
import json
import os
import pathlib
import resource
import subprocess
import time

import install
from rows import LLAMA, OPENVINO

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")


def figure(row, reply):
    """What the row shows of a reply: tokens/s, ms, s or MiB."""
    if row.metric == "prefill": return row.pp * row.batch / reply["pp_s"]
    if row.metric == "decode": return row.tg * row.batch / reply["tg_s"]
    if row.metric == "again": return 1000 * reply["again_s"]
    return reply["start_s" if row.metric == "start" else "resident_mib"]


class Kvasir:
    def __init__(self, binary, threads):
        self.binary, self.threads = pathlib.Path(binary).resolve(), threads

    def run(self, row, *args):
        env = {**os.environ, **({"KVASIR_ISA": row.isa} if row.isa else {})}
        p = subprocess.run([self.binary, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        if p.returncode: raise RuntimeError(f"kvasir {' '.join(map(str, args))}: {p.stderr.decode().strip()}")
        return json.loads(p.stdout)

    def probes(self, row, threads):
        return self.run(row, "bench", "kernel", "--probes", "--json", "-t", threads)

    def measure(self, row, model, flags, threads=None):
        """The figure and, where it has one, its percentage of the probes' limit."""
        threads = threads or self.threads
        if row.metric in ("start", "memory"):
            words = " the" * (row.pp if row.metric == "memory" else 1)
            begin = time.monotonic()
            reply = self.run(row, "run", model, "--raw", "-p", words, "-n", max(1, row.tg), "--ignore-eos", "--json", "-c", 2048, "-t", threads, *flags)
            return {"start_s": time.monotonic() - begin, "resident_mib": reply["resident_bytes"] / 2**20}
        args = ["--pp", row.pp, "--tg", max(1, row.tg), "--batch", row.batch, "-t", threads, "--json", *flags]
        if row.metric == "again": args.append("--again")
        return self.run(row, "bench", "batch", model, *args)["rows"][0]


class Peer:
    """A worker process of a peer with a model loaded."""

    def __init__(self, name, build, model):
        script, python = {
            LLAMA: ("worker_llama_cpp.py", install.python(build)),
            OPENVINO: ("worker_openvino.py", install.python("native")),
        }[name]
        self.process = subprocess.Popen([python, HERE / script, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def measure(self, row, settings):
        job = {"settings": settings, "pp": row.pp, "tg": row.tg, "batch": row.batch, "metric": row.metric}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line: raise RuntimeError(f"the peer ended with {self.process.wait()}")
        reply = json.loads(line)
        if "error" in reply: raise RuntimeError(reply["error"])
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class OtherLoad:
    """Processor time of others while something was measured, in percent of all cores: a figure taken beside a
    busy neighbour is no figure."""

    def __init__(self, peers):
        self.peers = peers
        self.at = self.read()

    def read(self):
        busy = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        for p in self.peers:
            fields = pathlib.Path(f"/proc/{p.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            own += (int(fields[11]) + int(fields[12])) / TICKS
        return time.monotonic(), (sum(busy[:3]) + sum(busy[5:8])) / TICKS, own

    def percent(self):
        t, busy, own = (b - a for a, b in zip(self.at, self.read()))
        return max(0.0, 100 * (busy - own) / (t * os.cpu_count()))
