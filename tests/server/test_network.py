"""A network that delays, cuts and garbles what passes: what comes through whole is right, and the server is well."""
import http.client
import json
import random
import socket
import struct
import threading
import time
import unittest

from harness import PATIENCE, PLAIN, Server

ROUNDS = 15  # requests of each client
CLIENTS = 6
PROMPTS = [f"prompt number {i} of those that cross the network" for i in range(8)]
FAULTS = ("delay", "cut", "garble request", "garble answer")


class Proxy:
    """Takes connections to its port to `target`. Each connection gets the faults that `choose(rng)` names: bytes go in pieces, and
    perhaps late; the connection ends amid them, with or without a reset; or some of them are changed."""

    def __init__(self, target, choose, seed):
        self.target, self.choose, self.rng = target, choose, random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.counts = dict.fromkeys(FAULTS, 0)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            faults = self.choose(self.rng)
            for fault in faults:
                self.counts[fault] += 1
            server = socket.create_connection(self.target)
            seed = self.rng.random()
            for source, sink, kind in ((client, server, "request"), (server, client, "answer")):
                threading.Thread(target=self.pump, args=(source, sink, kind, faults, random.Random(f"{seed}{kind}")), daemon=True).start()

    def pump(self, source, sink, kind, faults, rng):
        left = rng.randrange(1, 3000) if "cut" in faults and rng.random() < 0.7 else None
        try:
            while data := source.recv(rng.choice((1, 40, 1000, 4096))):
                if "delay" in faults:
                    time.sleep(rng.choice((0, 0, 0, 0.001, 0.005)))
                if f"garble {kind}" in faults and rng.random() < 0.5:
                    at = rng.randrange(len(data))
                    data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
                if left is not None:
                    data, left = data[:left], left - len(data)
                sink.sendall(data)
                if left is not None and left <= 0:
                    if rng.random() < 0.5:  # a reset instead of an end
                        for s in (source, sink):
                            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
            else:
                sink.shutdown(socket.SHUT_WR)  # the other direction goes on
                return
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def close(self):
        self.listener.close()


class Network(unittest.TestCase):
    def through(self, port, i, streamed, patience):
        """The text that comes; None when no whole answer does, in `patience` seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        body = {"prompt": PROMPTS[i], "max_tokens": 16, "temperature": 0, "ignore_eos": True, "stream": streamed}
        try:
            connection.request("POST", PLAIN, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            raw = response.read().decode()
            if response.status != 200:
                return None
            if not streamed:
                return json.loads(raw)["choices"][0]["text"]
            events = [line[6:] for line in raw.split("\n") if line.startswith("data: ")]
            if not events or events[-1] != "[DONE]":
                return None
            return "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return None
        finally:
            connection.close()

    def run_clients(self, server, choose, seed, patience=PATIENCE):
        """What each request through the proxy got, as (prompt, text); meanwhile others ask directly."""
        want = [server.complete(p) for p in PROMPTS]
        proxy = Proxy((server.host, server.port), choose, seed)
        got, wrong = [], []

        def client(number):
            rng = random.Random(number)
            for _ in range(ROUNDS):
                i = rng.randrange(len(PROMPTS))
                got.append((i, self.through(proxy.port, i, rng.random() < 0.5, patience)))

        def direct():
            while any(t.is_alive() for t in clients):
                i = len(got) % len(PROMPTS)
                text = server.complete(PROMPTS[i])
                if text != want[i]:
                    wrong.append((i, text))

        clients = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
        for t in clients:
            t.start()
        direct()
        for t in clients:
            t.join()
        proxy.close()
        self.assertEqual(wrong, [])
        self.assertEqual(len(got), ROUNDS * CLIENTS)
        return want, got, proxy.counts

    def test_late_and_in_pieces_all_answers_come_and_are_right(self):
        with Server() as server:
            want, got, counts = self.run_clients(server, lambda rng: ["delay"] if rng.random() < 0.5 else [], 1)
            self.assertEqual([(i, text) for i, text in got if text != want[i]], [])
            self.assertGreater(counts["delay"], 0)

    def test_what_is_cut_is_noticed_and_what_is_whole_is_right(self):
        with Server() as server:
            choose = lambda rng: [f for f in ("delay", "cut") if rng.random() < 0.5]
            want, got, counts = self.run_clients(server, choose, 2)
            self.assertEqual([(i, text) for i, text in got if text not in (want[i], None)], [])
            lost = sum(text is None for _, text in got)
            self.assertTrue(0 < lost <= counts["cut"], (lost, counts))

    def test_whatever_becomes_of_the_bytes_the_server_is_well(self):
        with Server() as server:
            choose = lambda rng: [f for f in FAULTS if rng.random() < 0.5]
            _, got, counts = self.run_clients(server, choose, 3, patience=1)  # lengths that are garbled promise more than comes
            self.assertTrue(any(text is None for _, text in got))
            self.assertGreater(min(counts.values()), 0)
            self.assertEqual(server.get("/health").status, 200)


if __name__ == "__main__":
    unittest.main()
