"""What the endpoints take, refuse and give; and that a text is the same whoever else is served."""
import gzip
import json
import re
import subprocess
import threading
import time
import unittest

from harness import BINARY, CHAT, PLAIN, ROOT, Server, chat, wait_until


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        with cls.server:
            pass  # idle, and code 0

    def refused(self, path, body, param=None, status=400, raw=None):
        answer = self.server.post(path, body, raw=raw)
        self.assertEqual(answer.status, status, answer.body)
        if param is not None:
            self.assertEqual(answer.error["param"], param)
            self.assertIn(param, answer.error["message"])
        return answer

    def test_a_chat_has_all_fields_of_the_api(self):
        answer = self.server.post(CHAT, chat("hi", max_tokens=5, ignore_eos=True))
        self.assertEqual(answer.status, 200, answer.body)
        body = answer.json
        self.assertEqual(body["object"], "chat.completion")
        self.assertEqual(body["model"], "llama")
        self.assertEqual(body["choices"][0]["message"]["role"], "assistant")
        self.assertEqual(body["choices"][0]["finish_reason"], "length")
        usage = body["usage"]
        self.assertEqual(usage["completion_tokens"], 5)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 5)
        self.assertIn("cached_tokens", usage["prompt_tokens_details"])
        self.assertEqual(body["timings"]["predicted_n"], 5)
        self.assertTrue(answer.headers["X-Request-Id"].startswith("chatcmpl-"))

    def test_a_stream_has_role_content_reason_usage_done_in_this_order(self):
        stream = self.server.stream(CHAT, chat("hi", max_tokens=6, ignore_eos=True, n=2, seed=1, temperature=1,
                                               stream_options={"include_usage": True}, kvasir_report=True))
        self.assertEqual(stream.headers["Content-Type"].split(";")[0], "text/event-stream")
        chunks = list(stream)
        for index in (0, 1):
            mine = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
            self.assertEqual(mine[0]["delta"], {"role": "assistant", "content": ""})
            self.assertTrue(all(set(c["delta"]) == {"content"} for c in mine[1:-1]))
            self.assertEqual((mine[-1]["delta"], mine[-1]["finish_reason"]), ({}, "length"))
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 12)
        self.assertIn("ended_because", chunks[-1]["usage"]["kvasir"]["cache"])
        self.assertIn("prefill", chunks[-1]["usage"]["kvasir"]["seconds"])
        self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))

    def test_a_stream_without_usage_ends_with_timings_and_the_report(self):
        for path, body in ((CHAT, chat("hi")), (PLAIN, {"prompt": "hi"})):
            last = list(self.server.stream(path, {**body, "max_tokens": 6, "ignore_eos": True, "kvasir_report": True}))[-1]
            self.assertEqual(last["choices"][0]["finish_reason"], "length")
            self.assertNotIn("usage", last)
            self.assertEqual(last["timings"]["predicted_n"], 6)
            self.assertIn("ended_because", last["kvasir"]["cache"])
            plain = list(self.server.stream(path, {**body, "max_tokens": 6, "ignore_eos": True}))[-1]
            self.assertIn("timings", plain)
            self.assertNotIn("kvasir", plain)

    def test_a_text_is_scored_without_writing_any(self):
        body = {"prompt": ["some text", "more of it"], "max_tokens": 0, "echo": True, "logprobs": 2}
        answer = self.server.post(PLAIN, body)
        self.assertEqual(answer.status, 200, answer.body)
        usage = answer.json["usage"]
        self.assertEqual((usage["completion_tokens"], usage["total_tokens"]), (0, usage["prompt_tokens"]))
        choices = answer.json["choices"]
        self.assertEqual([c["text"] for c in choices], body["prompt"])
        self.assertEqual(sum(len(c["logprobs"]["tokens"]) for c in choices), usage["prompt_tokens"])
        self.assertEqual(self.server.stream(PLAIN, {**body, "prompt": "some text"}).text(), "some text")
        self.refused(PLAIN, {"prompt": "some text", "max_tokens": 0}, "max_tokens")

    def test_progress_of_a_prefill_is_told_when_asked_for(self):
        stream = self.server.stream(PLAIN, {"prompt": "abcdefgh " * 200, "max_tokens": 1, "return_progress": True})
        progress = [c["prompt_progress"] for c in stream if "prompt_progress" in c]
        self.assertGreater(len(progress), 1)
        self.assertEqual(progress[-1]["processed"], progress[-1]["total"])
        self.assertEqual([p["processed"] for p in progress], sorted(p["processed"] for p in progress))

    def test_completions_take_four_kinds_of_prompts(self):
        tokens = self.server.post("/tokenize", {"prompt": "some text"}).json["tokens"]
        one = self.server.complete("some text")
        self.assertEqual(self.server.complete(tokens), one)
        both = self.server.post(PLAIN, {"prompt": ["some text", "another"], "max_tokens": 16, "temperature": 0,
                                        "ignore_eos": True, "n": 2}).json["choices"]
        self.assertEqual([c["index"] for c in both], [0, 1, 2, 3])
        self.assertEqual([both[0]["text"], both[1]["text"]], [one, one])
        listed = self.server.post(PLAIN, {"prompt": [tokens, tokens], "max_tokens": 16, "temperature": 0,
                                          "ignore_eos": True}).json["choices"]
        self.assertEqual([c["text"] for c in listed], [one, one])

    def test_echo_and_logprobs_tell_of_the_prompt_too(self):
        body = self.server.post(PLAIN, {"prompt": "some text", "max_tokens": 3, "echo": True, "logprobs": 2,
                                        "temperature": 0, "ignore_eos": True}).json
        choice = body["choices"][0]
        self.assertTrue(choice["text"].startswith("some text"))
        count = body["usage"]["prompt_tokens"] + 3
        self.assertEqual(len(choice["logprobs"]["tokens"]), count)
        self.assertIsNone(choice["logprobs"]["token_logprobs"][0])
        self.assertTrue(all(p <= 0 for p in choice["logprobs"]["token_logprobs"][1:]))

    def test_a_seed_repeats_and_another_differs(self):
        ask = lambda seed: self.server.complete("once", 24, temperature=2, seed=seed)
        self.assertEqual(ask(5), ask(5))
        self.assertNotEqual(ask(5), ask(6))

    def test_unknown_fields_are_told_and_known_ones_with_wrong_types_refused(self):
        answer = self.server.post(PLAIN, {"prompt": "a", "max_tokens": 1, "wat": 1, "bad\r\nname": 2})
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["X-Kvasir-Ignored-Fields"], "wat, ?")
        self.refused(PLAIN, {"prompt": "a", "max_tokens": "1"}, "max_tokens")
        self.refused(PLAIN, {"prompt": "a", "n": 0}, "n")
        self.refused(PLAIN, {"prompt": "a", "logit_bias": {"999999": 1}})
        self.refused(PLAIN, {"prompt": "a", "stop": [1]}, "stop")
        self.refused(PLAIN, {"prompt": [999999]}, "prompt")
        self.assertIn("18446744073709551615", self.refused(PLAIN, {"prompt": [2**64 - 1]}, "prompt").error["message"])
        for empty in ([""], [[]], ["a", ""], [[5], []]):
            self.refused(PLAIN, {"prompt": empty}, "prompt")
        self.refused(CHAT, {"messages": []}, "messages")
        self.refused(CHAT, chat("a", tools=[{"type": "function"}]), "tools")
        self.refused(CHAT, chat("a", response_format={"type": "json_object"}), "response_format")
        self.refused(CHAT, chat("a", cache_salt="x"), "cache_salt")
        self.refused(CHAT, chat("a", model="gpt-4"), "model", status=404)

    def test_extremes_are_refused_with_the_range(self):
        for field, value in (("n", 10**6), ("max_tokens", 2**31), ("max_tokens", -2), ("logprobs", 10**9),
                             ("temperature", 1e300), ("top_p", -0.1), ("priority", 10**9),
                             ("n", 33), ("beam_width", 33)):  # of 32 sequences at once
            answer = self.refused(PLAIN, {"prompt": "a", field: value}, field)
            self.assertIn("must be from", answer.error["message"])

    def test_bodies_that_are_no_json_are_refused(self):
        for raw in (b"", b"{", b"[]", b"nonsense", b'{"prompt": "\xff\xfe"}', b"[" * 1_000_000, b'{"a":' * 100_000,
                    b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "\\ud800"}', b"\0" * 100):
            answer = self.server.post(PLAIN, raw=raw)
            self.assertEqual(answer.status, 400, (raw[:40], answer.body))
            self.assertIn("message", answer.error)
        # Readers differ in which of two they take.
        for path in (PLAIN, "/tokenize"):
            twice = self.refused(path, None, raw=b'{"prompt":"a","temperature":0,"max_tokens":1,"max_tokens":2}')
            self.assertIn('"max_tokens" twice', twice.error["message"])

    def test_a_compressed_body_is_refused_for_what_it_is(self):
        for path in (PLAIN, "/tokenize"):
            answer = self.server.post(path, raw=gzip.compress(b'{"prompt": "a"}'), headers={"Content-Encoding": "gzip"})
            self.assertEqual((answer.status, answer.error["code"]), (415, "unsupported_encoding"))
            self.assertIn("gzip", answer.error["message"])
            self.assertEqual(self.server.post(path, {"prompt": "a"}, headers={"Content-Encoding": "Identity"}).status, 200)

    def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers_in_the_words_that_clients_look_for(self):
        # By its tokens, and unread for its bytes.
        for text in ("abc " * 5000, "abc " * 100000):
            for path, body, field in ((PLAIN, {"prompt": text}, "prompt"), (CHAT, chat(text), "messages")):
                error = self.refused(path, body, field).error
                self.assertEqual(error["code"], "context_length_exceeded")
                self.assertTrue(error["message"].startswith("This model's maximum context length is 4096 tokens"), error)

    def test_paths_and_methods_that_are_none(self):
        self.assertEqual(self.server.get("/nope").status, 404)
        answer = self.server.get(PLAIN)
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST"))
        self.assertEqual(self.server.post("/health").status, 405)

    def test_one_model_is_described_by_its_name(self):
        listed = self.server.get("/v1/models").json["data"][0]
        self.assertEqual(self.server.get("/v1/models/llama").json, listed)
        other = self.server.get("/v1/models/org/llama")
        self.assertEqual((other.status, other.error["code"]), (404, "model_not_found"))
        self.assertEqual(self.server.post("/v1/models/llama", {}).status, 405)

    def test_the_version_is_that_of_the_program(self):
        out = subprocess.run([BINARY, "--version"], check=True, text=True, stdout=subprocess.PIPE).stdout
        self.assertEqual(self.server.get("/version").json, {"version": out.split()[1]})

    def test_a_name_that_the_client_gives_its_request_comes_back_and_is_logged(self):
        named = {"X-Request-Id": "trace 7/\"a\""}
        answer = self.server.post(PLAIN, {"prompt": "a", "max_tokens": 1}, headers=named)
        self.assertEqual(answer.headers.get_all("X-Request-Id"), [named["X-Request-Id"]])
        wait_until("the line", lambda: f"id={answer.json['id']}" in self.server.stderr())
        line = next(one for one in self.server.stderr().splitlines() if f"id={answer.json['id']}" in one)
        self.assertIn(r'client_id="trace 7/\"a\""', line)
        for path in ("/v1/models", "/nowhere"):
            self.assertEqual(self.server.get(path, headers=named).headers["X-Request-Id"], named["X-Request-Id"])
        for bad in ("x" * 129, "gr\xf6\xdfe"):
            answer = self.server.post(PLAIN, {"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": bad})
            self.assertEqual(answer.headers["X-Request-Id"], answer.json["id"])

    def test_models_health_metrics_and_the_cache_can_be_looked_at(self):
        self.assertEqual(self.server.get("/health").json, {"status": "ok"})
        model = self.server.get("/v1/models").json["data"][0]
        self.assertEqual((model["id"], model["max_model_len"]), ("llama", 4096))
        self.server.complete("look at me", 2)
        metrics = self.server.get("/metrics")
        self.assertTrue(metrics.headers["Content-Type"].startswith("text/plain"))
        for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:time_to_first_token_seconds_bucket",
                     "vllm:generation_tokens_total", "vllm:request_success_total"):
            self.assertIn(name, metrics.body.decode())
        kv = self.server.kv()
        self.assertEqual(len(kv["map"]["cells"]), kv["pool"]["blocks"])
        self.assertGreater(kv["pool"]["cached_idle"], 0)

    def test_the_grafana_dashboard_asks_for_metrics_that_are_there(self):
        self.server.complete("so that there is something to count", 2)
        there = set(re.findall(r"^# TYPE (\S+)", self.server.get("/metrics").body.decode(), re.M))
        dashboard = json.loads((ROOT / "packaging" / "grafana-dashboard.json").read_text())
        asked = {name for panel in dashboard["panels"] for target in panel["targets"]
                 for name in re.findall(r"(?:vllm|kvasir):\w+", target["expr"])}
        self.assertGreater(len(asked), 15)
        self.assertEqual({re.sub("_bucket$", "", name) for name in asked} - there, set())

    def test_tokens_and_text_go_round(self):
        text = "Größe 东 🙂 <|im_end|> x"
        tokens = self.server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        self.assertEqual(len(tokens["token_strs"]), tokens["count"])
        self.assertEqual(self.server.post("/detokenize", {"tokens": tokens["tokens"]}).json["prompt"], text)
        self.assertEqual(self.server.post("/tokenize", {"content": text}).json["tokens"], tokens["tokens"])
        self.refused("/tokenize", {"prompt": 5}, "prompt")
        self.refused("/tokenize", {}, "prompt")
        self.refused("/detokenize", {"tokens": [10**12]}, "tokens")
        chat_tokens = self.server.post("/tokenize", {"messages": chat("hi")["messages"]}).json["count"]
        used = self.server.post(CHAT, chat("hi", max_tokens=1)).json["usage"]["prompt_tokens"]
        self.assertEqual(chat_tokens, used)

    def test_tokenizing_tells_what_it_does_not_know_and_has_a_templates_arguments(self):
        answer = self.server.post("/tokenize", {"prompt": "a", "model": "llama", "wat": 1, "bad\r\nname": 2})
        self.assertEqual((answer.status, answer.headers["X-Kvasir-Ignored-Fields"]), (200, "wat, ?"))
        answer = self.server.post("/detokenize", {"tokens": [20], "model": "llama", "wat": 1})
        self.assertEqual((answer.status, answer.headers["X-Kvasir-Ignored-Fields"]), (200, "wat"))
        self.assertIsNone(self.server.post("/detokenize", {"tokens": [20]}).headers["X-Kvasir-Ignored-Fields"])
        messages = chat("hi")["messages"]
        answer = self.server.post("/tokenize", {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}})
        self.assertEqual((answer.status, answer.headers["X-Kvasir-Ignored-Fields"]), (200, None))
        self.refused("/tokenize", {"messages": messages, "chat_template_kwargs": 5}, "chat_template_kwargs")

    def test_tokens_are_of_the_model_that_is_asked_for(self):
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [20]})):
            self.assertEqual(self.refused(path, {**body, "model": "gpt-4"}, "model", status=404).error["code"], "model_not_found")
            self.refused(path, {**body, "model": 5}, "model")
            self.assertEqual(self.server.post(path, {**body, "model": ""}).status, 200)

    def test_a_view_with_a_wrong_interval_is_refused(self):
        for value in ("", "0", "99", "60001", "1e3", "x", "%"):
            answer = self.server.get("/v1/kv/stream?interval_ms=" + value)
            self.assertEqual((answer.status, answer.error["param"]), (400, "interval_ms"), value)

    def test_parts_of_a_message_are_lines_of_their_own(self):
        parts = [{"type": "text", "text": "alpha"}, {"type": "text", "text": "beta"}]
        tokens = lambda content: self.server.post("/tokenize", {"messages": [{"role": "user", "content": content}]}).json["tokens"]
        self.assertEqual(tokens(parts), tokens("alpha\nbeta"))

    def test_counters_move_while_a_request_runs(self):
        with Server() as server:
            stream = server.stream(PLAIN, {"prompt": "some text", "max_tokens": 3900, "ignore_eos": True})
            for _ in zip(range(5), stream):
                pass
            self.assertGreaterEqual(server.metric("vllm:generation_tokens_total"), 5)
            self.assertGreater(server.metric("vllm:prompt_tokens_total"), 5)
            for histogram in ("time_to_first_token", "request_queue_time"):
                self.assertEqual(server.metric(f"vllm:{histogram}_seconds_count"), 1)
            ended = lambda: dict(re.findall(r'^vllm:request_success_total{.*finished_reason="(\w+)"} (\d+)',
                                            server.get("/metrics").body.decode(), re.M))
            self.assertEqual(ended(), {"stop": "0", "length": "0", "abort": "0"})
            stream.close()
            wait_until("its end", lambda: ended()["abort"] == "1")
            server.post(PLAIN, {"prompt": "a", "max_tokens": 0, "echo": True, "logprobs": 1})
            self.assertEqual(server.metric("vllm:request_queue_time_seconds_count"), 2)
            self.assertEqual(server.metric("vllm:time_to_first_token_seconds_count"), 1)

    def test_a_prompts_time_has_no_wait_for_a_place_in_it(self):
        with Server("--max-sequences", "1") as server:
            first = server.stream(PLAIN, {"prompt": "x", "max_tokens": 3900, "ignore_eos": True})
            next(iter(first))
            got = []
            asking = threading.Thread(target=lambda: got.append(server.post(PLAIN, {"prompt": "a", "max_tokens": 3})))
            asking.start()
            wait_until("it to wait", lambda: server.metric("vllm:num_requests_waiting") == 1)
            time.sleep(0.2)
            first.close()
            asking.join()
            timings = got[0].json["timings"]
            self.assertGreater(timings["ttft_ms"], 200)
            self.assertGreater(timings["prompt_ms"], 0)
            self.assertLess(timings["prompt_ms"], timings["ttft_ms"] - 190)

    def test_texts_that_would_take_much_memory_are_refused_with_the_limit(self):
        def too_large(path, body, param, limit):
            answer = self.server.post(path, body)
            self.assertEqual(answer.status, 413, answer.body[:200])
            self.assertEqual(answer.error["param"], param)
            self.assertIn(str(limit), answer.error["message"])
        # Characters of no token longer than one byte.
        text = "\x01" * (1 << 17)
        for field in ("with_pieces", "return_token_strs"):
            too_large("/tokenize", {"content": text, field: True}, field, 1 << 16)
        self.assertGreater(self.server.post("/tokenize", {"content": text}).json["count"], 1 << 16)
        for field in ("prompt", "content"):
            too_large("/tokenize", {field: "a " * (1 << 19) + "a"}, field, 1 << 20)
        too_large("/tokenize", {"messages": chat("a " * (1 << 19))["messages"]}, "messages", 1 << 20)
        self.assertEqual(self.server.post("/detokenize", {"tokens": [20] * (1 << 18)}).status, 200)
        too_large("/detokenize", {"tokens": [20] * ((1 << 18) + 1)}, "tokens", 1 << 18)
        for path in ("/tokenize", "/detokenize"):
            too_large(path, {"prompt": "a" * (8 << 20)}, None, 8 << 20)

    def test_a_next_turn_and_a_repeated_prompt_come_from_the_cache(self):
        first = chat("tell me of the sea " * 20, max_tokens=40, ignore_eos=True)
        self.server.post(CHAT, first)
        again = self.server.post(CHAT, first).json["usage"]
        self.assertEqual(again["prompt_tokens_details"]["cached_tokens"], again["prompt_tokens"] - 1)

    def test_a_stop_string_never_shows_not_even_a_part(self):
        whole = self.server.complete("stop here", 60)
        stop = whole[20:24]
        cut = whole.index(stop)
        for stream in (False, True):
            body = {"prompt": "stop here", "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stop": [stop]}
            if stream:
                text = self.server.stream(PLAIN, body).text()
            else:
                choice = self.server.post(PLAIN, body).json["choices"][0]
                text = choice["text"]
                self.assertEqual(choice["finish_reason"], "stop")
            self.assertEqual(text, whole[:cut])

    def test_the_text_is_equal_alone_and_in_company_streamed_or_not_and_after_a_twin_left(self):
        prompts = [f"{'common beginning ' * (i % 4)}question {i}" for i in range(32)]
        alone = [self.server.complete(p, 48) for p in prompts]
        got = {}

        def ask(i, stream):
            body = {"prompt": prompts[i], "max_tokens": 48, "temperature": 0, "ignore_eos": True}
            got[i, stream] = self.server.stream(PLAIN, body).text() if stream else self.server.complete(prompts[i], 48)

        for stream in (False, True):
            threads = [threading.Thread(target=ask, args=(i, stream)) for i in range(32)]
            twins = [self.server.stream(PLAIN, {"prompt": prompts[i], "max_tokens": 3000, "temperature": 0,
                                                "ignore_eos": True}) for i in range(4)]
            for t in threads:
                t.start()
            for twin in twins:
                next(iter(twin))
                twin.close()
            for t in threads:
                t.join()
        for (i, stream), text in got.items():
            self.assertEqual(text, alone[i], f"prompt {i}, stream {stream}")
        self.assertEqual(len(got), 64)

    def test_many_requests_on_one_connection_are_answered_in_order(self):
        connection = self.server.connect()
        for i in range(50):
            answer = self.server.post(PLAIN, {"prompt": f"p{i}", "max_tokens": 1 + i % 3, "ignore_eos": True},
                                      connection=connection)
            self.assertEqual(answer.json["usage"]["completion_tokens"], 1 + i % 3)

    def test_the_page_is_there_with_a_strict_policy(self):
        page = self.server.get("/")
        self.assertEqual(page.status, 200)
        self.assertIn("text/html", page.headers["Content-Type"])
        policy = page.headers["Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(self.server.get("/web/../secret").status, 404)
        self.assertEqual(self.server.get("/", headers={"If-None-Match": page.headers["ETag"]}).status, 304)

    def test_the_live_view_sends_what_changes(self):
        connection = self.server.connect()
        connection.request("GET", "/v1/kv/stream?interval_ms=100")
        response = connection.getresponse()
        self.assertEqual(response.headers["Content-Type"].split(";")[0], "text/event-stream")
        events = []
        for line in response:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                if len(events) == 1:
                    self.server.complete("while somebody looks", 4)
                if len(events) > 1 and any(e["steps"] for e in events[1:]):
                    break
        connection.close()
        ids = [s["id"] for e in events for s in e["steps"]]
        self.assertEqual(ids, sorted(set(ids)))


class Refusals(unittest.TestCase):
    def test_each_leaves_a_line_without_its_text_and_is_counted_by_code(self):
        with Server() as server:
            server.post(PLAIN, {"prompt": "zanzibar", "n": 0})
            server.post(CHAT, chat("zanzibar", model="other"))
            server.get("/no%20where")
            server.send("POST", "/v1/models", {})
            server.send("GET", "/v1/models", headers={"X": "x" * 20000})
            counted = lambda: re.findall(r'^kvasir:refused_requests_total{.*reason="(\w+)",status="(\d+)"} (\d+)',
                                         server.get("/metrics").body.decode(), re.M)
            self.assertEqual(sorted(counted()), [("http", "431", "1"), ("invalid_request_error", "400", "1"),
                                                 ("method_not_allowed", "405", "1"), ("model_not_found", "404", "1"),
                                                 ("not_found", "404", "1")])
            lines = lambda: [line for line in server.stderr().splitlines() if "event=refused " in line]
            wait_until("four lines", lambda: len(lines()) == 4)
            self.assertIn(f'status=400 code=invalid_request_error tenant=- path="{PLAIN}" param="n"', lines()[0])
            self.assertIn('status=404 code=not_found tenant=- path="/no where"', lines()[2])
            self.assertNotIn("zanzibar", server.stderr())

    def test_a_flood_of_them_is_no_flood_of_lines(self):
        with Server() as server:
            connection = server.connect()
            for _ in range(500):
                server.get("/nowhere", connection=connection)
            lines = lambda: server.stderr().count("event=refused ")
            left_out = lambda: sum(int(n) for n in re.findall(r"event=refused_left_out count=(\d+)", server.stderr()))
            wait_until("all to be told of", lambda: lines() + left_out() == 500)
            self.assertLess(lines(), 250)


class Priorities(unittest.TestCase):
    def test_the_lowest_goes_first(self):
        with Server("--max-sequences", "1") as server:
            def ask(priority):
                server.post(PLAIN, {"prompt": "a", "max_tokens": 1, "priority": priority},
                            headers={"X-Request-Id": f"of {priority}"})

            first = server.stream(PLAIN, {"prompt": "x", "max_tokens": 3900, "ignore_eos": True})
            next(iter(first))
            threads = [threading.Thread(target=ask, args=(p,)) for p in (10, 0, -10)]
            for i, thread in enumerate(threads):
                thread.start()
                wait_until("its place in the queue", lambda: server.kv()["sequences_total"] == i + 2)
            first.close()
            for thread in threads:
                thread.join()
            ended = lambda: re.findall(r'client_id="of (\S+)"', server.stderr())
            wait_until("their ends", lambda: len(ended()) == 3)
            self.assertEqual(ended(), ["-10", "0", "10"])


class Thinking(unittest.TestCase):
    def test_a_template_without_thoughts_has_no_reasoning(self):
        with Server() as server:
            message = server.post(CHAT, chat("a", max_tokens=3)).json["choices"][0]["message"]
            self.assertNotIn("reasoning_content", message)


class BenchServe(unittest.TestCase):
    """`kvasir bench serve` against a real server."""

    def bench(self, server, *flags, path=""):
        command = [BINARY, "bench", "serve", "--url", f"http://{server.host}:{server.port}{path}", "--endpoint", "completions", "--json", *flags]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_no_row_finds_the_prompts_of_the_row_before_in_the_cache(self):
        with Server() as server:
            out = self.bench(server, "--rate", "1000,1000", "--requests", "10", "--prompt-tokens", "200", "--output-tokens", "4")
            self.assertEqual(out.returncode, 0, out.stderr)
            for row in json.loads(out.stdout)["rows"]:
                self.assertEqual(row["completed"], 10, row["errors"])
                self.assertLess(row["cached_tokens"], 0.2 * row["total_input_tokens"])

    def test_a_url_that_ends_with_v1_is_the_same(self):
        with Server() as server:
            for path in ("/v1", "/v1/"):
                out = self.bench(server, "--concurrency", "1", "--requests", "1", "--prompt-tokens", "9", "--output-tokens", "1", path=path)
                self.assertEqual(out.returncode, 0, out.stderr)

    def test_where_every_request_is_refused_the_reason_is_told(self):
        with Server() as server:
            out = self.bench(server, "--concurrency", "2", "--requests", "4", "--prompt-tokens", "10000")
            self.assertEqual(out.returncode, 1)
            row = json.loads(out.stdout)
            self.assertEqual((row["completed"], row["errors"]), (0, {"status 400": 4}))
            self.assertIn("none of 4 requests", out.stderr)
            self.assertIn("status 400: " + row["error_messages"]["status 400"], out.stderr)
            self.assertIn("context", out.stderr)


if __name__ == "__main__":
    unittest.main()
