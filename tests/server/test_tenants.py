"""Keys, shares, limits, and that no tenant sees another's cache."""
import concurrent.futures
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from harness import BINARY, CHAT, PLAIN, Server, add_key, chat, wait_until


class Tenants(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = os.path.join(self.folder.name, "keys.toml")

    def add(self, name, *flags):
        return add_key(self.file, name, *flags)

    def server(self, *flags, **more):
        return Server("--keys", self.file, *flags, **more)

    def test_without_a_known_key_only_health_and_the_page_are_open(self):
        root, user = self.add("root", "--role", "operator"), self.add("user")
        with self.server(key=root) as server:
            for path in ("/health", "/"):
                self.assertEqual(server.get(path, key="").status, 200)
            for key in ("", "wrong", user[:-1], user + "x", "x" * 10000):
                for path in ("/v1/models", "/metrics", "/v1/kv", "/v1/kv/stream"):
                    self.assertEqual(server.get(path, key=key).status, 401, (path, key[:50]))
                answer = server.post(PLAIN, {"prompt": "a"}, key=key)
                self.assertEqual(answer.status, 401)
                self.assertNotIn(user[:-1], answer.body.decode())
            self.assertEqual(server.get("/v1/models", key=user).status, 200)
            for path in ("/metrics", "/v1/kv", "/v1/kv/stream"):
                self.assertEqual(server.get(path, key=user).status, 403)
            # What the router takes for a path is what is checked.
            for path in ("/v1/kv/", "//v1/kv", "/v1//kv", "/V1/KV", "/v1/kv%2f", "/v1/%6bv", "/health/../v1/kv",
                         "/v1/kv?x=/health", "/web/../v1/kv"):
                self.assertIn(server.get(path, key="").status, (400, 401, 404), path)

    def test_a_key_is_found_whatever_the_case_of_its_scheme_and_the_spaces_before_it(self):
        user = self.add("user")
        with self.server(key=self.add("root", "--role", "operator")) as server:
            ask = lambda value: server.get("/v1/models", headers={"Authorization": value}).status
            for scheme in ("Bearer ", "bearer ", "BEARER ", "Bearer   "):
                self.assertEqual(ask(scheme + user), 200, scheme)
            for value in ("Bearer", "Bearer ", "Bearer" + user, "Basic " + user, user):
                self.assertEqual(ask(value), 401, value)

    def test_ids_of_answers_do_not_tell_how_many_others_had(self):
        with Server() as server:
            ids = [server.post(PLAIN, {"prompt": "a", "max_tokens": 1}).json["id"] for _ in range(6)]
        self.assertEqual(len(set(ids)), 6)
        words = [[int(id.removeprefix("cmpl-")[at:at + 8], 16) for at in range(0, 32, 8)] for id in ids]
        for before, after in zip(words, words[1:]):
            for a, b in zip(before, after):
                self.assertGreater((b - a) % 2**32, 16)

    def test_bodies_that_strangers_announce_take_no_room_from_others(self):
        root = self.add("root", "--role", "operator")
        with self.server("--body-limit", "1M", key=root) as server:
            strangers = []
            for _ in range(20):  # each says it will send as much as one may
                s = socket.create_connection((server.host, server.port))
                s.sendall(f"POST {PLAIN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 20}\r\n\r\n".encode())
                self.assertIn(b" 401 ", s.recv(4096))
                strangers.append(s)
            self.assertEqual(server.post(PLAIN, {"prompt": "a", "max_tokens": 1}).status, 200)

    def test_a_prefix_is_shared_within_a_group_and_never_beyond(self):
        keys = {"root": self.add("root", "--role", "operator"), "a": self.add("a"), "b": self.add("b"),
                "c1": self.add("c1", "--group", "c"), "c2": self.add("c2", "--group", "c")}
        with self.server(key=keys["root"]) as server:
            def cached(name):
                body = {"prompt": "a secret that all begin with, word for word " * 10, "max_tokens": 2, "kvasir_report": True}
                usage = server.post(PLAIN, body, key=keys[name]).json["usage"]
                return usage["prompt_tokens_details"]["cached_tokens"], usage["kvasir"]["cache"]["ended_because"]
            self.assertEqual(cached("a")[0], 0)
            self.assertGreater(cached("a")[0], 100)
            self.assertEqual(cached("b"), (0, "never_seen"))
            self.assertEqual(cached("c1"), (0, "never_seen"))
            self.assertGreater(cached("c2")[0], 100)

    def test_limits_are_kept_and_told(self):
        root = self.add("root", "--role", "operator")
        few = self.add("few", "--requests-per-minute", "3")
        small = self.add("small", "--max-context", "64")
        one = self.add("one", "--max-running", "1")
        with self.server(key=root) as server:
            ask = lambda key, **more: server.post(PLAIN, {"prompt": "a b c", "max_tokens": 1, **more}, key=key)
            answers = [ask(few) for _ in range(6)]
            self.assertEqual([a.status for a in answers[:3]], [200] * 3)
            self.assertEqual(answers[-1].status, 429)
            self.assertEqual(answers[-1].error["code"], "rate_limit_exceeded")
            self.assertGreaterEqual(int(answers[-1].headers["Retry-After"]), 1)
            self.assertEqual(ask(root).status, 200)
            long = ask(small, prompt="word " * 80)
            self.assertEqual((long.status, long.error["code"]), (400, "context_length_exceeded"))
            usage = ask(small, max_tokens=4000, ignore_eos=True).json["usage"]
            self.assertEqual(usage["total_tokens"], 64)
            stream = server.stream(PLAIN, {"prompt": "x", "max_tokens": 3900, "ignore_eos": True}, key=one)
            next(iter(stream))
            self.assertEqual(ask(one).status, 429)
            stream.close()
            wait_until("room for another", lambda: ask(one).status == 200)

    def test_limits_are_looked_at_before_a_body_is_read(self):
        root = self.add("root", "--role", "operator")
        few = self.add("few", "--requests-per-minute", "1")
        one = self.add("one", "--max-running", "1")
        with self.server(key=root) as server:
            bad = lambda key: server.post(PLAIN, raw=b"{", key=key)
            answers = [bad(few) for _ in range(4)]
            self.assertEqual(answers[0].status, 400)
            self.assertIn("rate_limit_exceeded", [a.error["code"] for a in answers])
            self.assertEqual([bad(one).status for _ in range(4)], [400] * 4)
            stream = server.stream(PLAIN, {"prompt": "x", "max_tokens": 3900, "ignore_eos": True}, key=one)
            next(iter(stream))
            self.assertEqual(bad(one).error["code"], "too_many_running")
            self.assertEqual(bad(root).status, 400)
            stream.close()
            wait_until("room for another", lambda: bad(one).status == 400)

    def test_max_running_counts_the_choices_of_all_prompts(self):
        root, four = self.add("root", "--role", "operator"), self.add("four", "--max-running", "4")
        with self.server(key=root) as server:
            ask = lambda **more: server.post(PLAIN, {"prompt": "a", "max_tokens": 1, **more}, key=four)
            for more, field in (({"n": 5}, "n"), ({"beam_width": 5}, "beam_width"), ({"prompt": ["a"] * 3, "n": 2}, "prompt")):
                answer = ask(**more)
                self.assertEqual((answer.status, answer.error["param"]), (400, field))
                self.assertIn("max_running", answer.error["message"])
            for more in ({"n": 4}, {"n": 1, "beam_width": 4}, {"prompt": ["a"] * 2, "n": 2}):
                self.assertEqual(ask(**more).status, 200, more)
            streams = [server.stream(PLAIN, {"prompt": "x", "max_tokens": 3900, "ignore_eos": True, "n": 3}, key=four)]
            next(iter(streams[0]))
            self.assertEqual(ask(n=2).error["code"], "too_many_running")
            self.assertEqual(ask(n=1).status, 200)
            streams[0].close()
            wait_until("room for four", lambda: ask(n=4).status == 200)

    def test_tokenizing_takes_of_the_requests_a_minute(self):
        root = self.add("root", "--role", "operator")
        with self.server(key=root) as server:
            for i, (path, body) in enumerate((("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [20]}))):
                few = self.add(f"few{i}", "--requests-per-minute", "2")
                server.process.send_signal(signal.SIGHUP)
                wait_until("the key", lambda: server.get("/v1/models", key=few).status == 200)
                answers = [server.post(path, body, key=few) for _ in range(4)]
                self.assertEqual([a.status for a in answers[:2]], [200] * 2)
                self.assertEqual(answers[-1].error["code"], "rate_limit_exceeded")
                self.assertGreaterEqual(int(answers[-1].headers["Retry-After"]), 1)
                self.assertEqual(server.post(path, body).status, 200)

    def test_what_the_server_has_no_room_for_is_not_charged(self):
        root = self.add("root", "--role", "operator")
        few, other = self.add("few", "--requests-per-minute", "2", "--tokens-per-minute", "200"), self.add("other")
        with self.server("--max-sequences", "1", "--max-waiting", "1", key=root) as server:
            long = {"prompt": "x", "max_tokens": 3900, "ignore_eos": True}
            streams = [server.stream(PLAIN, long)]
            next(iter(streams[0]))
            streams.append(server.stream(PLAIN, long))  # waits
            streams.append(server.stream(PLAIN, long, key=other))  # so does another's: now nobody may
            ask = lambda: server.post(PLAIN, {"prompt": "word " * 20, "max_tokens": 1}, key=few)
            codes = [ask().error["code"] for _ in range(8)]
            self.assertEqual(codes, ["queue_full"] * 8)
            for stream in streams:
                stream.close()
            wait_until("an empty queue", lambda: ask().status == 200)

    def test_a_flood_by_one_leaves_others_their_turn_by_weight(self):
        root, flood = self.add("root", "--role", "operator"), self.add("flood")
        calm = {1: self.add("calm1"), 4: self.add("calm4", "--weight", "4")}
        many, few = 40, 8
        for weight, key in calm.items():
            with self.server("--max-sequences", "1", "--max-waiting", "32", key=root, ctx=60000) as server:
                waiting = lambda: server.metric("vllm:num_requests_waiting")
                # Nobody is served while this one runs; then all wait, and each costs the same.
                holder = server.connect()
                holder.request("POST", PLAIN, json.dumps({"prompt": "x", "max_tokens": 59000, "ignore_eos": True}), server.headers(root))
                wait_until("the first to run", lambda: server.kv()["sequences"])
                statuses = {flood: [], key: []}
                def ask(who, i):
                    prompt = [(i * 11 + at * (i + 1)) % 200 + 20 for at in range(300)]
                    body = {"prompt": [i + 20] + prompt, "max_tokens": 20, "ignore_eos": True}
                    statuses[who].append(server.post(PLAIN, body, key=who).status)
                def start(who, numbers):
                    threads = [threading.Thread(target=ask, args=(who, i)) for i in numbers]
                    for t in threads:
                        t.start()
                    return threads
                threads = start(flood, range(many))
                wait_until("a full queue", lambda: waiting() == 32 and len(statuses[flood]) == many - 32)
                self.assertEqual(set(statuses[flood]), {429})
                threads += start(key, range(many, many + few))
                wait_until("all to wait", lambda: waiting() == 32 + few)
                self.assertNotIn("event=request", server.stderr(), "the first one ended: the test tests nothing")
                holder.close()
                for t in threads:
                    t.join()
                self.assertEqual(statuses[key], [200] * few)
                self.assertEqual(statuses[flood].count(200), 32)
                order = re.findall(r"event=request .*?tenant=(flood|calm)", server.stderr())
                self.assertEqual((order.count("calm"), order.count("flood")), (few, 32))
                last = max(i for i, who in enumerate(order) if who == "calm")
                turns = order[:last].count("flood")
                # To each `weight` of the one's, one of the other's: neither waits for the other's queue.
                self.assertGreaterEqual(turns, few // weight - 1, order)
                self.assertLessEqual(turns, few // weight + 1, order)

    def test_a_limit_that_comes_with_a_reload_begins_full(self):
        root, alice = self.add("root", "--role", "operator"), self.add("alice", "--tokens-per-minute", "1000000")
        with self.server(key=root) as server:
            ask = lambda: server.post(PLAIN, {"prompt": "a", "max_tokens": 1}, key=alice)
            self.assertEqual({ask().status for _ in range(30)}, {200})
            with open(self.file) as file:
                text = file.read()
            with open(self.file, "w") as file:
                file.write(text.replace("tokens_per_minute = 1000000", "tokens_per_minute = 1000000\nrequests_per_minute = 3"))
            server.process.send_signal(signal.SIGHUP)
            wait_until("the reload", lambda: "event=reload tenants=" in server.stderr())
            answers = [ask() for _ in range(8)]
            self.assertEqual([a.status for a in answers[:3]], [200] * 3)
            self.assertIn(429, [a.status for a in answers])

    def test_keys_are_read_again_on_sighup_and_bad_files_change_nothing(self):
        root = self.add("root", "--role", "operator")
        with self.server(key=root) as server:
            late = self.add("late")
            self.assertEqual(server.get("/v1/models", key=late).status, 401)
            server.process.send_signal(signal.SIGHUP)
            wait_until("the new key", lambda: server.get("/v1/models", key=late).status == 200)
            good = open(self.file).read()
            open(self.file, "w").write("nonsense = [")
            server.process.send_signal(signal.SIGHUP)
            wait_until("the complaint", lambda: "the old keys stay" in server.stderr())
            self.assertEqual(server.get("/v1/models", key=late).status, 200)
            open(self.file, "w").write(good.replace("late", "later"))
            server.process.send_signal(signal.SIGHUP)
            wait_until("the reload", lambda: server.stderr().count("event=reload tenants=") >= 2)
            self.assertEqual(server.get("/v1/models", key=late).status, 200)
            subprocess.run([BINARY, "key", "remove", "later", "--file", self.file], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            server.process.send_signal(signal.SIGHUP)
            wait_until("the key to be gone", lambda: server.get("/v1/models", key=late).status == 401)

    def test_keys_that_are_added_at_once_are_all_there(self):
        names = [f"t{i}" for i in range(12)]
        with concurrent.futures.ThreadPoolExecutor(len(names)) as at_once:
            keys = list(at_once.map(self.add, names))
        listed = json.loads(subprocess.run([BINARY, "key", "list", "--json", "--file", self.file], check=True, text=True,
                                           stdout=subprocess.PIPE).stdout)["tenants"]
        self.assertEqual(sorted(t["name"] for t in listed), sorted(names))
        self.assertEqual(len(set(keys)), len(names))
        self.assertEqual(os.listdir(self.folder.name), ["keys.toml"])

    def test_who_is_no_operator_any_more_sees_no_more_of_the_cache(self):
        root = self.add("root", "--role", "operator")
        keys = {name: self.add(name, "--role", "operator") for name in ("gone", "user", "rotated")}
        other = self.add("rotated")
        with self.server(key=root) as server:
            def watch(key):
                connection = server.connect()
                connection.request("GET", "/v1/kv/stream?interval_ms=100", headers=server.headers(key))
                response = connection.getresponse()
                self.assertTrue(response.readline().startswith(b"data: "))
                self.addCleanup(connection.close)
                return response

            seen = {name: watch(key) for name, key in keys.items()}
            stays = [watch(root), watch(other)]
            running = server.stream(PLAIN, {"prompt": "x", "max_tokens": 3000, "ignore_eos": True}, key=keys["gone"])
            next(iter(running))
            hashed = hashlib.sha256(keys["rotated"].encode()).hexdigest()[:12]
            for command in (("remove", "gone"), ("add", "user", "--role", "user"), ("remove", "rotated", "--key", hashed)):
                subprocess.run([BINARY, "key", *command, "--file", self.file], check=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
            server.process.send_signal(signal.SIGHUP)
            for name, response in seen.items():
                events = 0
                while response.readline():  # to its end, which is whole
                    events += 1
                    self.assertLess(events, 1000, f"{name} sees all the same")
            now = time.time()
            for response in stays:
                line = b""
                while not line.startswith(b"data: ") or json.loads(line[6:])["time"] < now:
                    line = response.readline()
                    self.assertTrue(line, "it ended too")
            self.assertEqual(server.get("/v1/kv", key=keys["gone"]).status, 401)
            self.assertEqual(server.get("/v1/kv", key=keys["user"]).status, 403)
            self.assertEqual(list(running)[-1]["choices"][0]["finish_reason"], "length")

    def test_an_operator_and_the_log_are_told_whose_need_took_a_prefix(self):
        root, a, b = self.add("root", "--role", "operator"), self.add("alice"), self.add("bob")
        with self.server("--kv-memory", "640K", "--block-tokens", "16", key=root, ctx=1024) as server:
            def report(key):
                body = {"prompt": "of my own " * 60, "max_tokens": 1, "kvasir_report": True}
                return server.post(PLAIN, body, key=key).json["usage"]["kvasir"]["cache"]

            def flood():
                for i in range(8):
                    server.post(PLAIN, {"prompt": f"{i} other " * 80, "max_tokens": 4}, key=a)

            for key in (root, b):
                report(key)
                flood()
                told = report(key)
                self.assertEqual(told["ended_because"], "evicted")
                self.assertEqual(told.get("evicted_for"), "alice" if key == root else None)
                self.assertEqual("alice" in str(told), key == root)
            of_bob = lambda: [line for line in server.stderr().splitlines() if "tenant=bob" in line]
            wait_until("the lines", lambda: len(of_bob()) == 2)
            self.assertIn("cache_ended=evicted evicted_for=alice", of_bob()[1])

    def test_errors_and_reports_name_nothing_of_others(self):
        root, a, b = self.add("root", "--role", "operator"), self.add("alice"), self.add("bob")
        with self.server("--kv-memory", "640K", "--block-tokens", "16", key=root, ctx=1024) as server:
            secret = "zanzibar "
            server.post(PLAIN, {"prompt": secret * 60, "max_tokens": 4}, key=a)
            texts = []
            for i in range(6):
                texts.append(server.post(PLAIN, {"prompt": f"{i} other " * 80, "max_tokens": 4, "kvasir_report": True},
                                         key=b).body.decode())
            texts.append(server.post(PLAIN, {"prompt": "x " * 3000}, key=b).body.decode())
            for text in texts:
                self.assertNotIn("alice", text)
                self.assertNotIn("zanzibar", text)


if __name__ == "__main__":
    unittest.main()
