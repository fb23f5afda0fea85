#!/usr/bin/env python3
"""Writes seeds for the fuzzers: small inputs of every kind that is understood.

    fuzz/make_seeds.py FOLDER
"""
import json
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def bodies():
    common = {"max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "typical_p": 0.8, "seed": -5,
              "stop": ["a", "b"], "stop_token_ids": [4], "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.5,
              "logit_bias": {"7": -100}, "min_tokens": 2, "ignore_eos": True, "priority": 9, "stream": True,
              "stream_options": {"include_usage": True}, "return_progress": True, "kvasir_report": True, "timeout_s": 2.5}
    chat = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
    yield b"\0" + json.dumps(chat).encode()
    yield b"\0" + json.dumps({**chat, **common, "logprobs": True, "top_logprobs": 3, "n": 2}).encode()
    yield b"\0" + json.dumps({**chat, "tools": [], "response_format": {"type": "text"}, "chat_template_kwargs": {"a": [1, None]},
                              "reasoning_format": "none"}).encode()
    for prompt in ("hi", ["a", "b"], [5, 6, 7], [[5], [6, 7]]):
        yield b"\1" + json.dumps({"prompt": prompt, "echo": True, "logprobs": 2, "max_tokens": 3}).encode()
    yield b"\1" + json.dumps({"prompt": "x", **common, "n": 3, "prompt_logprobs": 2}).encode()
    yield b"\1" + json.dumps({"prompt": "x", "use_beam_search": True, "n": 2, "beam_width": 3, "length_penalty": 0.5,
                              "max_tokens": 8}).encode()


def http():
    head = b" HTTP/1.1\r\nHost: x\r\n"
    yield b"GET /a?b=%20c" + head + b"\r\n"
    yield b"POST /stream" + head + b"Content-Length: 5\r\n\r\nhello" + b"GET /keep" + head + b"\r\n"
    yield b"POST /x" + head + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
    yield b"HEAD /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://h/p" + head + b"\r\n"
    yield b"OPTIONS /a" + head + b"Origin: https://a\r\nAccess-Control-Request-Method: POST\r\n\r\n"


def templates():
    source = (ROOT / "tests" / "data").rglob("*.jinja")
    for path in source:
        yield path.read_bytes()
    yield (b"{% for m in messages %}{{ loop.index }}{% if m['role'] == 'user' %}{{ m.content | trim | upper }}{% else %}{{ m | tojson }}"
           b"{% endif %}{% endfor %}{% if add_generation_prompt %}go{% endif %}")
    yield (b"{%- set ns = namespace(x=1) -%}{% macro f(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ f(n) }}{% for i in range(3) if i != 1 %}"
           b"{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ raise_exception('no') }}")
    yield b"{{ messages[0].content[::-1].split(' ')|join(',') }}{{ {'a': 1}.items()|list }}{{ strftime_now('%Y') }}\0{\"messages\":[{\"content\":\"a b\"}]}"


def keys():
    yield ("[tenant.a]\nkey_sha256 = [\"%s\"]\nweight = 2.5\ngroup = \"g\"\nrole = \"operator\"\nkv_share = 0.5\n[tenant.\"b.c\"]\n"
           "requests_per_minute = 5\ntokens_per_minute = 9\nmax_context = 7\npriority = -1\nmax_running = 3\n" % ("ab" * 32)).encode()


def config():
    yield (ROOT / "packaging" / "kvasir.toml").read_bytes()
    yield b"threads = 2\nkv-dtype = 'int8'\n[serve]\nport = 1\ncors = [\"a\", 'b']\nmax-sequences = 0x10\n[run]\ntemp = 0.5\n"


def traces():
    yield b'{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n{"timestamp": 10, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n'
    yield b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,110,27\n"


def batches():
    lines = b""
    for i, body in enumerate(bodies()):
        value = json.loads(body[1:])
        value.pop("stream", None)
        value.pop("stream_options", None)
        url = "/v1/completions" if body[0] else "/v1/chat/completions"
        lines += json.dumps({"custom_id": f"r{i}", "method": "POST", "url": url, "body": value}).encode() + b"\n"
    yield b"\0\0" + lines


def sse():
    yield b"\3: c\n\ndata: a\ndata:b\r\n\r\nevent: x\nid: 1\ndata: {}\n\n"


def texts():
    yield "\3Größe 東京 🙂 <|im_end|> don't 12345 \t\n  x".encode()
    yield b"\0\xff\xfe\xc3 a\xe2\x82"


def operations():
    for seed in range(20):
        yield random.Random(seed).randbytes(400)


def models():
    for name in ("llama", "gemma3", "qwen2"):
        yield (ROOT / "tests" / "data" / "tiny" / f"{name}.gguf").read_bytes()[:60_000]


SEEDS = {"body": bodies, "http": http, "template": templates, "keys": keys, "config": config, "trace": traces, "batch": batches, "sse": sse,
         "text": texts, "kv": operations, "engine": operations, "gguf": models}

for target, make in SEEDS.items():
    folder = pathlib.Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(make()):
        (folder / f"seed{i}").write_bytes(seed)
