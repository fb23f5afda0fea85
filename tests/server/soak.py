"""Everything at once against the real server, for minutes: tenants, conversations, cancels, disconnects, a small pool, long
prompts, several choices, bad requests, reloads. Every greedy answer is compared with that of a cold server that was asked
alone. At the end the server must be idle, and no larger than it was.

    tools/soak.sh MINUTES
"""
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time

from harness import CHAT, PLAIN, TINY, Server, add_key

MODEL = os.environ.get("MODEL", TINY)
CONTEXT = 1024
CLIENTS = 12
PROMPTS = 400  # different greedy requests; each is asked for again and again


def requests(seed=1):
    """Greedy requests, with and without common beginnings."""
    rng = random.Random(seed)
    words = "one two three four five six seven eight nine ten river stone cloud fire".split()
    beginnings = [" ".join(rng.choices(words, k=rng.randrange(5, 120))) for _ in range(12)]
    out = []
    for i in range(PROMPTS):
        text = (rng.choice(beginnings) + " " if rng.random() < 0.7 else "") + " ".join(rng.choices(words, k=rng.randrange(1, 40)))
        common = {"max_tokens": rng.choice((1, 5, 20, 60, 200)), "temperature": 0, "ignore_eos": True}
        if rng.random() < 0.3:
            common["stop"] = [rng.choice(words), "zz"]
        if rng.random() < 0.4:
            out.append((CHAT, {**common, "messages": [{"role": "user", "content": text}]}))
        else:
            out.append((PLAIN, {**common, "prompt": text}))
    return out


def text_of(answer):
    choice = answer.json["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def cold_answers(asked):
    """What a server says that is asked one thing at a time and has nothing cached of others: its cache is too small."""
    out = []
    with Server("--max-sequences", "1", "--log-level", "warn", model=MODEL, ctx=CONTEXT) as server:
        for path, body in asked:
            answer = server.post(path, body)
            assert answer.status == 200, answer.body
            out.append(text_of(answer))
    return out


class Soak:
    def __init__(self, server, keys, asked, want, end):
        self.server, self.keys, self.asked, self.want, self.end = server, keys, asked, want, end
        self.counts, self.wrong, self.lock = {}, [], threading.Lock()

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def compare(self, i, text):
        self.count("compared")
        if text != self.want[i]:
            with self.lock:
                self.wrong.append((i, text, self.want[i]))

    def whole(self, rng, key, connection):
        i = rng.randrange(len(self.asked))
        path, body = self.asked[i]
        answer = self.server.post(path, body, key=key, connection=connection)
        if answer.status == 200:
            self.compare(i, text_of(answer))
        else:
            self.count(f"status {answer.status}")

    def streamed(self, rng, key, _):
        i = rng.randrange(len(self.asked))
        stream = self.server.stream(*self.asked[i], key=key)
        if stream.status == 200:
            self.compare(i, stream.text())
        else:
            self.count(f"status {stream.status}")
        stream.connection.close()

    def left(self, rng, key, _):
        path, body = self.asked[rng.randrange(len(self.asked))]
        stream = self.server.stream(path, {**body, "max_tokens": 800}, key=key)
        if stream.status == 200:
            chunks = iter(stream)
            for _ in range(rng.randrange(1, 30)):
                if next(chunks, None) is None:
                    break
        stream.close()
        self.count("left")

    def several(self, rng, key, connection):
        path, body = self.asked[rng.randrange(len(self.asked))]
        answer = self.server.post(path, {**body, "n": rng.randrange(2, 5), "temperature": 1, "seed": rng.randrange(1000)}, key=key,
                                  connection=connection)
        self.count(f"several {answer.status}")

    def conversation(self, rng, key, connection):
        messages = []
        for turn in range(rng.randrange(2, 6)):
            messages.append({"role": "user", "content": f"turn {turn} of {rng.randrange(20)}"})
            answer = self.server.post(CHAT, {"messages": messages, "max_tokens": 30, "temperature": 0.7, "ignore_eos": True}, key=key,
                                      connection=connection)
            if answer.status != 200:
                self.count(f"status {answer.status}")
                return
            messages.append(answer.json["choices"][0]["message"])
        self.count("conversations")

    def bad(self, rng, key, connection):
        path, body = self.asked[rng.randrange(len(self.asked))]
        what = rng.choice(({"n": 0}, {"max_tokens": "x"}, {"temperature": -1}, {"logit_bias": {"x": 1}}, {"stop": [1]}, {"tools": [{}]}))
        answer = self.server.post(path, {**body, **what}, key=key, connection=connection)
        assert answer.status == 400, answer.body
        long = self.server.post(PLAIN, {"prompt": "word " * rng.randrange(2000, 4000)}, key=key, connection=connection)
        assert long.status in (400, 429), long.body
        self.count("bad")

    def long(self, rng, key, connection):
        answer = self.server.post(PLAIN, {"prompt": [rng.randrange(200) for _ in range(rng.randrange(400, 1000))], "max_tokens": 5}, key=key,
                                  connection=connection)
        self.count(f"long {answer.status}")

    def client(self, number):
        rng = random.Random(number)
        key = self.keys[number % len(self.keys)]
        connection = self.server.connect()
        kinds = [self.whole] * 6 + [self.streamed] * 6 + [self.left] * 3 + [self.several, self.conversation, self.bad, self.long]
        used = time.monotonic()
        while time.monotonic() < self.end:
            if time.monotonic() - used > 30:  # the server closes what is idle for longer
                connection.close()  # http.client opens it again
            used = time.monotonic()
            try:
                rng.choice(kinds)(rng, key, connection)
            except Exception as error:  # whatever it is, the run has failed
                with self.lock:
                    self.wrong.append((number, repr(error), "no exception"))
                return
        connection.close()


def main():
    minutes = float(sys.argv[1])
    folder = tempfile.mkdtemp()
    file = os.path.join(folder, "keys.toml")
    add = lambda name, *f: add_key(file, name, *f)
    root = add("root", "--role", "operator")
    keys = [add("a", "--weight", "3"), add("b", "--group", "g"), add("c", "--group", "g", "--kv-share", "0.5"), root]
    asked = requests()
    want = cold_answers(asked)
    print(f"{len(asked)} requests asked cold, one at a time", flush=True)
    # A pool of a few contexts: preemption and eviction are the rule.
    kv = os.environ.get("KV", "1M")
    with Server("--keys", file, "--kv-memory", kv, "--block-tokens", "16", "--max-sequences", "8", "--log-level", "warn", key=root, model=MODEL,
                ctx=CONTEXT) as server:
        begin, end = time.monotonic(), time.monotonic() + 60 * minutes
        soak = Soak(server, keys, asked, want, end)
        threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(CLIENTS)]
        for t in threads:
            t.start()
        sizes = []  # at the end of each tenth
        while any(t.is_alive() for t in threads):
            time.sleep(1)
            if time.monotonic() > begin + 6 * minutes * (len(sizes) + 1):
                sizes.append(server.resident_kib())
            if int(time.monotonic()) % 10 == 0:
                server.process.send_signal(signal.SIGHUP)
                assert server.get("/metrics").status == 200
        server.wait_idle()
        last_size = server.resident_kib()
        preemptions = server.metric("vllm:num_preemptions_total")
        print(json.dumps({**soak.counts, "differences": len(soak.wrong), "preemptions": preemptions,
                          "evicted_blocks": server.metric("kvasir:evicted_blocks_total"), "resident_kib_after_tenths": sizes,
                          "resident_kib_end": last_size}, indent=1))
        for i, got, expected in soak.wrong[:5]:
            print(f"DIFFERENT {i}:\n  got      {got!r}\n  expected {expected!r}")
        assert not soak.wrong
        assert soak.counts.get("compared", 0) > 0 and preemptions > 0
        # How long the allocator's arenas take to find their size depends on the machine: half of the time is for that.
        assert last_size <= sizes[4] * 1.01 + 256, "the server has grown"
    print("passed")


if __name__ == "__main__":
    main()
