"""What the workers share: a process that keeps a model loaded and answers one JSON line with one.

A job is {"settings": {...}, "pp": N, "tg": N, "batch": N, "metric": ...}: N prompt tokens and N tokens of output
of each of `batch` sequences. The answer has "pp_s" and "tg_s", seconds of each phase, where the first token of
output comes with the prompt, as in `kvasir bench batch`; for the metric "again" also "again_s", the same prompt a
second time. For "start" it has "start_s", from nothing but the loaded library to the first token,
and for "memory" "resident_mib", the process after the job.
"""
import json
import os
import random
import sys


def serve(answer):
    """Answers with what `answer(job)` returns. Everything else that the process prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as e:  # a setting that the peer refuses is no best setting
            reply = {"error": f"{type(e).__name__}: {e}".splitlines()[0]}
        print(json.dumps(reply), file=out, flush=True)


def prompt(count, seed, vocab):
    return random.Random(seed).choices(range(vocab), k=count)
