"""Clients that misbehave, pools that are full, signals: what others see of it."""
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from harness import CLOCK, PATIENCE, PLAIN, ROOT, SANITIZED, TINY, Server, add_key, tensors, wait_until

LONG = {"prompt": "long", "max_tokens": 3900, "temperature": 0, "ignore_eos": True}


class Clients(unittest.TestCase):
    def test_blocks_of_a_client_that_left_are_free_at_once(self):
        with Server() as server:
            stream = server.stream(PLAIN, LONG)
            next(iter(stream))
            self.assertTrue(server.kv()["sequences"])
            stream.close()
            server.wait_idle()
            self.assertIn("reason=cancelled", wait_until("the log", lambda: "reason=" in server.stderr() and server.stderr()))

    def test_a_client_that_left_before_its_whole_answer_is_cancelled(self):
        with Server() as server:
            connection = server.connect()
            connection.request("POST", PLAIN, json.dumps(LONG))
            wait_until("the sequence", lambda: server.kv()["sequences"])
            connection.close()
            server.wait_idle()

    def test_a_reader_that_stops_is_cut_off_and_others_go_on(self):
        with Server("--ctx", "60000", ctx=None) as server:
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((server.host, server.port))
            body = json.dumps({**LONG, "max_tokens": 59000, "stream": True, "logprobs": 20, "n": 4, "temperature": 1})
            slow.sendall((f"POST {PLAIN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                          f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
            wait_until("the sequence", lambda: server.kv()["sequences"])
            text = server.complete("others", 20)
            server.wait_idle()  # cut off, though it never closed
            self.assertEqual(server.complete("others", 20), text)
            slow.close()

    def test_a_body_that_was_read_takes_no_room_while_its_answer_is_made(self):
        with Server("--body-limit", "64M") as server:  # then there is room for one
            padded = json.dumps({**LONG, "stream": False}) + " " * (62 << 20)
            connection = server.connect()
            connection.request("POST", PLAIN, padded)
            wait_until("the sequence", lambda: server.kv()["sequences"])
            self.assertEqual(server.post(PLAIN, raw=json.dumps({"prompt": "a", "max_tokens": 1}) + " " * (62 << 20)).status, 200)
            connection.close()
            server.wait_idle()

    def test_bodies_of_strangers_take_no_room_from_others(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = os.path.join(folder, "keys.toml")
            key = add_key(keys, "somebody", "--role", "operator")
            with Server("--keys", keys, "--body-limit", "1M", key=key) as server:
                strangers = []
                for i in range(300):  # together far more than all room
                    s = socket.create_connection((server.host, server.port))
                    path = ("/health", "/web/style.css", PLAIN)[i % 3]
                    s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 20}\r\n\r\n".encode())
                    strangers.append(s)
                # Answered and closed, without a wait for the body.
                self.assertIn(b" 200 ", strangers[0].recv(100))
                self.assertEqual(server.post(PLAIN, {"prompt": "a", "max_tokens": 1}).status, 200)
                for s in strangers:
                    s.close()

    def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed(self):
        with Server("--kv-memory", "8M") as server:
            body = {"prompt": [[1 + i % 200 for i in range(3000)]] * 30, "n": 32, "logprobs": 20, "echo": True, "max_tokens": 1}
            answer = server.post(PLAIN, body)
            self.assertEqual((answer.status, answer.error["code"], answer.error["param"]), (400, "answer_too_large", "echo"))
            answer = server.post(PLAIN, {**body, "prompt": body["prompt"][0], "n": 1, "stream": True})
            self.assertEqual((answer.status, answer.error["code"]), (400, "answer_too_large"))
            one = server.post(PLAIN, {**body, "prompt": body["prompt"][0], "n": 1})
            self.assertEqual(len(one.json["choices"][0]["logprobs"]["tokens"]), 3001)

    def test_a_text_longer_than_any_context_is_refused_unread(self):
        with Server() as server:
            for path, body in ((PLAIN, {"prompt": "a" * 5_000_000}),
                               ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 5_000_000}]})):
                answer = server.post(path, body)
                self.assertEqual((answer.status, answer.error["code"]), (400, "context_length_exceeded"))
                self.assertRegex(answer.error["message"], "there are 5[0-9]{6} bytes")

    def test_garbage_half_requests_and_floods_leave_the_server_well(self):
        with Server() as server:
            sockets = []
            for raw in (b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
                        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET " + b"a" * 100_000):
                s = socket.create_connection((server.host, server.port))
                try:
                    s.sendall(raw)
                except ConnectionError:
                    pass  # cut off while it was still sending
                sockets.append(s)
            for _ in range(500):
                sockets.append(socket.create_connection((server.host, server.port)))
            self.assertEqual(server.get("/health").status, 200)
            for s in sockets:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                s.close()
            self.assertEqual(server.get("/health").status, 200)

    def test_more_than_may_wait_are_told_when_to_come_again(self):
        with Server("--max-sequences", "1", "--max-waiting", "2") as server:
            streams = [server.stream(PLAIN, LONG)]
            next(iter(streams[0]))
            answers = []
            ask = lambda: answers.append(server.post(PLAIN, {**LONG, "max_tokens": 5}))
            threads = [threading.Thread(target=ask) for _ in range(8)]
            for t in threads:
                t.start()
            wait_until("refusals", lambda: len(answers) >= 6)
            for a in answers[:6]:
                self.assertEqual(a.status, 429)
                self.assertGreaterEqual(int(a.headers["Retry-After"]), 1)
            streams[0].close()
            for t in threads:
                t.join()
            self.assertEqual(sorted(a.status for a in answers), [200, 200] + [429] * 6)

    def test_short_of_room_all_end_with_the_text_they_have_alone(self):
        prompts = [f"number {i} of many" for i in range(12)]
        with Server("--kv-memory", "640K", "--block-tokens", "16", ctx=1024) as server:
            alone = [server.complete(p, 400) for p in prompts]
            ask = lambda i: texts.update({i: server.stream(PLAIN, {**LONG, "prompt": prompts[i], "max_tokens": 400}).text()})
            for _ in range(50):  # until enough of them met
                texts = {}
                threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                self.assertEqual([texts[i] for i in range(len(prompts))], alone)
                preempted = server.metric("vllm:num_preemptions_total")
                if preempted > 0:
                    break
            self.assertGreater(preempted, 0, "the pool was not short: the test tests nothing")

    def test_tiny_requests_leave_nothing_behind(self):
        count = int(os.environ.get("KVASIR_TINY_REQUESTS", "10000"))
        with Server("--log-level", "warn") as server:
            connection = server.connect()
            ask = lambda: server.post(PLAIN, {"prompt": "x", "max_tokens": 1}, connection=connection)
            for _ in range(2000):
                ask()
            before = server.resident_kib()
            for _ in range(count - 2000):
                self.assertEqual(ask().status, 200)
            if not SANITIZED:
                self.assertLess(server.resident_kib(), before * 1.05 + 1024)


class NoNumbers(unittest.TestCase):
    """A model in which one token's embedding is no number: whoever has that token gets logits that are none."""
    SICK = 272  # never in a text
    HEALTHY = [[20 + (7 * i + 3 * seed) % 200 for i in range(100)] for seed in range(4)]
    OTHERS = {"logit_bias": {str(SICK): -100}}  # so that healthy ones do not come to it by themselves

    def setUp(self):
        with open(TINY, "rb") as file:
            model = bytearray(file.read())
        (width, tokens), begin = tensors(model)["token_embd.weight"]
        self.assertGreater(tokens, self.SICK)
        begin += 4 * width * self.SICK
        model[begin:begin + 4 * width] = struct.pack("<f", float("nan")) * width
        self.model = tempfile.NamedTemporaryFile(suffix=".gguf")
        self.addCleanup(self.model.close)
        self.model.write(model)
        self.model.flush()

    def answers(self, server, tokens):
        return [server.complete(p, tokens, **self.OTHERS) for p in self.HEALTHY]

    def among_healthy_ones(self, server, alone, ask):
        """Asks while healthy streams are answered, which must not change; again, until they met."""
        for _ in range(50):
            streams = [server.stream(PLAIN, {**LONG, **self.OTHERS, "prompt": p, "max_tokens": 1000}) for p in self.HEALTHY]
            texts = {}
            read = lambda i: texts.update({i: streams[i].text()})
            threads = [threading.Thread(target=read, args=(i,)) for i in range(len(streams))]
            wait_until("the sequences", lambda: texts or server.kv()["sequences"])
            for t in threads:
                t.start()
            ask()
            met = bool(server.kv()["sequences"])
            for t in threads:
                t.join()
            self.assertEqual([texts.get(i) for i in range(len(streams))], alone)
            if met:
                return
        self.fail("they never met: the test tests nothing")

    def fails(self, server, body):
        answer = server.post(PLAIN, {"max_tokens": 5, **body})
        self.assertEqual(answer.status, 500, answer.body)
        self.assertRegex(answer.error["message"], "gave the logit nan|not finite")
        self.assertEqual(answer.error["type"], "server_error")
        stream = server.stream(PLAIN, {"max_tokens": 5, **body})
        if stream.status == 200:
            self.assertIn("error", list(stream)[-1])
        else:
            self.assertEqual(stream.status, 500)
            stream.close()

    def test_they_fail_their_request_alone(self):
        with Server(model=self.model.name) as server:
            alone = self.answers(server, 1000)
            shared = self.HEALTHY[0]
            sick = [[self.SICK], shared + [self.SICK], shared[:50] + [self.SICK] + shared[51:], [self.SICK] * 1500]
            def ask():
                for prompt in sick * 2:  # the second time there is something of it in the cache
                    self.fails(server, {"prompt": prompt})
                # Made by the model itself, amid an answer.
                self.fails(server, {"prompt": shared, "logit_bias": {str(self.SICK): 100}})
                self.fails(server, {"prompt": shared, "logit_bias": {str(self.SICK): 100}, "n": 2, "temperature": 1})
            self.among_healthy_ones(server, alone, ask)
            self.assertEqual(self.answers(server, 1000), alone)

    def test_what_they_leave_in_blocks_is_not_seen_by_the_next_owner(self):
        with Server("--kv-memory", "640K", "--block-tokens", "16", model=self.model.name, ctx=1024) as server:
            alone = self.answers(server, 300)
            for seed in range(8):  # more than the pool holds: each block had some
                self.fails(server, {"prompt": [20 + seed] + [self.SICK] * 900})
            self.assertEqual(self.answers(server, 300), alone)

    def test_a_client_that_leaves_while_they_are_computed_changes_nothing(self):
        with Server("--step-tokens", "64", model=self.model.name) as server:
            alone = self.answers(server, 1000)
            left = []
            def ask():
                for i in range(4):
                    prompt = [30 + i + len(left)] + self.HEALTHY[i] + [40 + i] * 3000 + [self.SICK] + [40 + i] * 500
                    stream = server.stream(PLAIN, {"prompt": prompt, "max_tokens": 5, "return_progress": True})
                    next(iter(stream))
                    stream.close()
                    left.append(prompt)
            self.among_healthy_ones(server, alone, ask)
            server.wait_idle()
            self.assertRegex(server.stderr(), "reason=(cancelled|error)")  # whichever came first
            for prompt in left[-4:]:
                self.fails(server, {"prompt": prompt})
            self.assertEqual(self.answers(server, 1000), alone)


class Ends(unittest.TestCase):
    def test_sigterm_lets_open_answers_finish_and_takes_no_new_ones(self):
        with Server(check_idle=False) as server:
            stream = server.stream(PLAIN, {**LONG, "max_tokens": 2000, "stream_options": {"include_usage": True}})
            kept = server.connect()
            server.get("/health", connection=kept)
            chunks = iter(stream)
            next(chunks)
            server.process.send_signal(signal.SIGTERM)
            wait_until("the drain", lambda: "event=drain" in server.stderr())
            with self.assertRaises(OSError):
                socket.create_connection((server.host, server.port))
            last = list(chunks)[-1]
            self.assertEqual(last["usage"]["completion_tokens"], 2000)
            self.assertEqual(server.process.wait(60), 0)

    def test_a_second_sigterm_ends_at_once(self):
        with Server("--ctx", "60000", ctx=None, check_idle=False) as server:
            stream = server.stream(PLAIN, {**LONG, "max_tokens": 59000})
            next(iter(stream))
            server.process.send_signal(signal.SIGTERM)
            wait_until("the drain", lambda: "event=drain" in server.stderr())
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(60), 0)
            with self.assertRaises((AssertionError, OSError, json.JSONDecodeError)):
                stream.text()

    def test_a_drain_has_a_deadline_and_what_is_not_done_by_then_is_told(self):
        with Server("--ctx", "60000", "--drain-timeout", "0.2", ctx=None, check_idle=False) as server:
            stream = server.stream(PLAIN, {**LONG, "max_tokens": 59000})
            next(iter(stream))
            whole = []
            asking = threading.Thread(target=lambda: whole.append(server.post(PLAIN, {**LONG, "max_tokens": 59000})))
            asking.start()
            wait_until("both to run", lambda: server.kv()["sequences_total"] == 2)
            began = time.monotonic()
            self.assertEqual(server.end(), 0)
            self.assertLess(time.monotonic() - began, 30)
            self.assertIn("deadline", server.stderr())
            self.assertEqual(list(stream)[-1]["error"]["code"], "draining")  # and [DONE]
            asking.join()
            self.assertEqual((whole[0].status, whole[0].error["code"]), (503, "draining"))

    def test_a_body_that_was_under_way_when_the_server_began_to_end_is_answered(self):
        with Server(check_idle=False) as server:
            body = json.dumps({"prompt": "a" * 1000, "max_tokens": 3}).encode()
            with socket.create_connection((server.host, server.port)) as s:
                s.sendall(f"POST {PLAIN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:500])
                server.get("/health")  # what was sent before has come
                server.process.send_signal(signal.SIGTERM)
                wait_until("the drain", lambda: "event=drain" in server.stderr())
                s.sendall(body[500:])
                answer = s.makefile("rb").read()
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
            self.assertIn(b'"code":"draining"', answer)
            self.assertEqual(server.process.wait(60), 0)

    def test_killed_and_started_again_it_gives_the_same_text(self):
        texts = set()
        for i in range(int(os.environ.get("KVASIR_KILLS", "3"))):
            server = Server(check_idle=False)
            texts.add(server.complete("after the fall", 40))
            streams = [server.stream(PLAIN, {**LONG, "prompt": f"load {j}"}) for j in range(4)]
            for stream in streams:
                next(iter(stream))
            time.sleep(0.01 * (i % 7))  # amid whatever it does
            server.end(signal.SIGKILL)
            for stream in streams:
                stream.close()
        self.assertEqual(len(texts), 1)

    def test_stopped_and_continued_it_goes_on(self):
        with Server() as server:
            want = server.complete("a pause", 3000)
            got = []
            asking = threading.Thread(target=lambda: got.append(server.complete("a pause", 3000)))
            asking.start()
            server.process.send_signal(signal.SIGSTOP)
            server.process.send_signal(signal.SIGCONT)
            asking.join()
            self.assertEqual(got, [want])

    @unittest.skipIf(SANITIZED, "a sanitizer wants to be the first library")
    def test_the_wall_clock_may_jump(self):
        with tempfile.TemporaryDirectory() as folder:
            file, keys = os.path.join(folder, "ahead"), os.path.join(folder, "keys.toml")
            def jump(years):
                with open(file, "r+b" if os.path.exists(file) else "wb") as f:
                    f.write(struct.pack("=q", years * 365 * 86400))
            jump(0)
            root, few = add_key(keys, "root", "--role", "operator"), add_key(keys, "few", "--requests-per-minute", "2")
            env = {"LD_PRELOAD": CLOCK, "KVASIR_CLOCK_AHEAD": file}
            with Server("--keys", keys, key=root, env=env) as server:
                ask = lambda **more: server.post(PLAIN, {"prompt": "a", "max_tokens": 1}, **more)
                want = server.complete("long", 3000)
                created = ask().json["created"]
                statuses = [ask(key=few).status for _ in range(4)]
                self.assertIn(429, statuses)
                idle = server.connect()
                self.assertEqual(server.get("/health", connection=idle).status, 200)
                got = []
                asking = threading.Thread(target=lambda: got.append(server.complete("long", 3000)))
                asking.start()
                for years in (10, -20, 1000, 0):
                    jump(years)
                    answer = ask()
                    self.assertEqual(answer.status, 200)
                    self.assertAlmostEqual(answer.json["created"], created + years * 365 * 86400, delta=PATIENCE)
                    self.assertLess(answer.json["timings"]["ttft_ms"], 1000 * PATIENCE)
                    if years:  # no time has passed for the limit
                        self.assertEqual(ask(key=few).status, 429)
                    self.assertEqual(server.get("/health", connection=idle).status, 200)
                asking.join()
                self.assertEqual(got, [want])


class Starts(unittest.TestCase):
    def fails(self, *flags, model=TINY):
        server = Server(*flags, model=model, ctx=None, wait=False, check_idle=False)
        self.addCleanup(server.process.stdout.close)
        code = server.process.wait(60)
        return code, server.stderr()

    def test_what_cannot_be_served_is_refused_in_one_line(self):
        code, text = self.fails("--host", "0.0.0.0")
        self.assertEqual(code, 2)
        self.assertIn("API keys", text)
        code, text = self.fails("--max-sequences", "0")
        self.assertEqual(code, 2)
        self.assertIn("--max-sequences is 0", text)
        code, text = self.fails(model="/nonexistent.gguf")
        self.assertEqual(code, 1)
        code, text = self.fails("--keys", "/nonexistent.toml")
        self.assertEqual(code, 1)
        self.assertIn("/nonexistent.toml", text)
        with Server() as server:
            code, text = self.fails("--port", str(server.port))
            self.assertEqual(code, 1)
            self.assertIn("in use", text)
        code, text = self.fails("--tls-cert", "a.pem")
        self.assertEqual(code, 2)

    @unittest.skipIf(SANITIZED, "the sanitizer's shadow takes all addresses")
    def test_under_any_limit_of_memory_it_serves_or_refuses_with_numbers(self):
        served = refused = 0
        prompt = lambda seed: [(seed * 7 + i * (seed + 3)) % 200 + 20 for i in range(3000)]
        for kv in (("--kv-memory", "100M"), ()):
            for mib in (40, 60, 80, 100, 120, 140, 160, 180, 200, 250, 350, 500):
                server = Server(*kv, "--log-level", "off", ctx=4096, wait=False, limit=mib << 20)
                try:
                    server.wait_ready()
                except AssertionError:
                    code, text = server.end(), server.stderr()
                    self.assertEqual(code, 1, (mib, kv, text))
                    self.assertRegex(text, r"\Akvasir: [^\n]*(\d|no thread)[^\n]*\n\Z", (mib, kv))
                    refused += 1
                    continue
                with server:  # it fills its pool, and is sent what it has no room for
                    streams = [server.stream(PLAIN, {**LONG, "prompt": prompt(seed), "max_tokens": 20}) for seed in range(12)]
                    self.assertEqual({s.status for s in streams}, {200})
                    for s in streams:
                        s.text()
                    answer = server.post(PLAIN, {"prompt": "word " * 4_000_000})
                    self.assertIn(answer.status, (400, 413, 503), answer.body)
                    self.assertTrue(server.complete("still there"))
                    # A heap of a thread's own reserves 64 MiB of addresses; without one, it takes a page each time.
                    self.assertLess(server.reserved_kib(), 1024)
                served += 1
        self.assertGreaterEqual(min(served, refused), 3)

    def test_a_model_that_is_cut_while_it_is_served_ends_it_clearly_or_not_at_all(self):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            with open(TINY, "rb") as tiny:
                file.write(tiny.read())
            file.flush()
            with Server(model=file.name, check_idle=False) as server:
                want = server.complete("before")
                os.truncate(file.name, 0)
                try:
                    self.assertEqual(server.complete("before"), want)
                    self.assertEqual(server.get("/metrics").status, 200)
                    self.assertEqual(server.get("/v1/kv").status, 200)
                except (OSError, http.client.HTTPException):
                    self.assertEqual(server.process.wait(60), 1)
                    self.assertIn(f"{file.name}: the file was cut", server.stderr())

    def test_a_model_that_is_removed_or_forbidden_is_served_on(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            with open(TINY, "rb") as tiny, open(path, "wb") as copy:
                copy.write(tiny.read())
            with Server(model=path) as server:
                want = server.complete("before")
                os.remove(path)
                os.chmod(folder, 0)
                self.assertEqual(server.get("/metrics").status, 200)
                self.assertEqual(server.get("/v1/kv").status, 200)
                self.assertEqual(server.complete("before"), want)
                os.chmod(folder, 0o700)

    def test_the_example_configuration_is_taken(self):
        with Server("--config", str(ROOT / "packaging" / "kvasir.toml")) as server:
            self.assertEqual(server.get("/health").status, 200)

    def test_it_tells_what_it_was_told_and_where_from(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('kv-dtype = "f32"\n[serve]\ncors = ["http://a", "http://b"]\n')
            file.flush()
            with Server("--config", file.name, "--alias", "a\nb", env={"KVASIR_KV_DTYPE": "f16"}) as server:
                line = next(line for line in server.stderr().splitlines() if line.startswith("settings: "))
            for part in ("ctx=4096 (flag)", "kv-dtype=f16 (KVASIR_KV_DTYPE)", f'cors="http://a,http://b" ({file.name})', 'alias="a\\nb" (flag)'):
                self.assertIn(part, line)
            self.assertNotIn("max-waiting", line)

    def test_a_file_that_is_no_model_ends_the_start(self):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(b"GGUF" + b"\0" * 100)
            file.flush()
            code, text = self.fails(model=file.name)
            self.assertEqual(code, 1)
            self.assertIn(file.name, text)

    def test_tls_serves_chats_and_refuses_plain_text(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True,
                           stderr=subprocess.DEVNULL)
            with Server("--tls-cert", cert, "--tls-key", key, check_idle=False) as server:
                context = ssl.create_default_context(cafile=cert)
                connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=60)
                for n in (1, 2000):
                    connection.request("POST", PLAIN, json.dumps({**LONG, "max_tokens": n, "stream": n > 1}))
                    response = connection.getresponse()
                    self.assertEqual(response.status, 200)
                    body = response.read()
                self.assertTrue(body.endswith(b"data: [DONE]\n\n"))
                connection.close()
                with socket.create_connection((server.host, server.port)) as plain:
                    plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    self.assertNotIn(b"200 OK", plain.recv(1000))
                self.assertEqual(server.end(), 0)
        code, text = self.fails("--tls-cert", TINY, "--tls-key", TINY)
        self.assertEqual(code, 1)
        self.assertIn(TINY, text)

    def test_a_unix_socket_serves_too(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            server = Server("--unix", path, check_idle=False)
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 200"))
            self.assertEqual(server.end(), 0)
            self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    unittest.main()
