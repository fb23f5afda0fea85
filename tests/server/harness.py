"""Starts the real binary as a server and talks to it. Only Python's own library."""
import fcntl
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("KVASIR_BINARY", str(ROOT / "build" / "kvasir"))
CLOCK = os.environ.get("KVASIR_JUMPING_CLOCK", str(ROOT / "build" / "tests" / "libjumping_clock.so"))
TINY = str(ROOT / "tests" / "data" / "tiny" / "llama.gguf")
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
# A sanitizer keeps what was freed, and takes all addresses for its shadow; leaks it finds by itself.
SANITIZED = bool({"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ))
FLAGS = os.environ.get("KVASIR_SERVE_FLAGS", "").split()  # that every server of the tests gets
PATIENCE = 60  # seconds until a test gives up waiting; nothing is expected to take as long


def wait_until(what, condition):
    """Polls: what is waited for comes soon, but nobody says when."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come within {PATIENCE} s")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Stream:
    """The events of a stream, as they come."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.status, self.headers = response.status, response.headers

    def __iter__(self):
        for line in self.response:
            line = line.decode().rstrip("\n")
            if line.startswith("data: "):
                if line == "data: [DONE]":
                    self.response.read()
                    return
                yield json.loads(line[6:])
        raise AssertionError("the stream ended without [DONE]")

    def text(self):
        out = ""
        for chunk in self:
            if "error" in chunk:
                raise AssertionError(chunk["error"])
            for choice in chunk["choices"]:
                out += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        return out

    def close(self):
        """Goes away without a word."""
        # The response holds the socket too.
        sock = self.connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.response.close()
        self.connection.close()


class Server:
    """`with Server(flags) as server:`; at the end the server must be idle, and end with code 0."""

    def __init__(self, *flags, model=TINY, ctx=4096, wait=True, check_idle=True, key=None, env=None, limit=None):
        self.log = tempfile.TemporaryFile("w+")
        # The server writes at its end, wherever stderr() just reads: the two have one position.
        fcntl.fcntl(self.log, fcntl.F_SETFL, fcntl.fcntl(self.log, fcntl.F_GETFL) | os.O_APPEND)
        command = [BINARY, "serve", model, *(() if "--port" in flags else ("--port", "0")), *FLAGS, *flags]
        if ctx:
            command += ["--ctx", str(ctx)]
        self.key, self.check_idle = key, check_idle
        env = {"XDG_CONFIG_HOME": "/nonexistent", **(env or {})}
        # `limit`: of the address space, in bytes.
        before = limit and (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **env}, preexec_fn=before)
        self.host = self.port = None
        if wait:
            self.wait_ready()

    def wait_ready(self):
        for line in self.process.stdout:
            match = re.match(r"listening on (https?|unix)://(.*)", line.strip())
            if match:
                if match[1] != "unix":
                    self.host, port = match[2].rstrip("/").rsplit(":", 1)
                    self.port = int(port)
                return self
        raise AssertionError("the server did not start:\n" + self.stderr())

    def stderr(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def headers(self, key):
        key = key if key is not None else self.key
        out = {"Content-Type": "application/json"}
        if key:
            out["Authorization"] = "Bearer " + key
        return out

    def send(self, method, path, body=None, key=None, raw=None, connection=None, headers=None):
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        own = connection is None
        connection = connection or self.connect()
        connection.request(method, path, data, {**self.headers(key), **(headers or {})})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        if own:
            connection.close()
        return answer

    def get(self, path, **more):
        return self.send("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.send("POST", path, body, **more)

    def stream(self, path, body, key=None):
        connection = self.connect()
        connection.request("POST", path, json.dumps({**body, "stream": True}), self.headers(key))
        return Stream(connection, connection.getresponse())

    def complete(self, prompt, tokens=16, **more):
        """The text that greedily follows a prompt."""
        answer = self.post(PLAIN, {"prompt": prompt, "max_tokens": tokens, "temperature": 0,
                                   "ignore_eos": True, **more})
        assert answer.status == 200, answer.body
        return answer.json["choices"][0]["text"]

    def kv(self):
        answer = self.get("/v1/kv")
        assert answer.status == 200, answer.body
        return answer.json

    def metric(self, name):
        """The first value under this name."""
        return float(re.search(rf"^{name}\S* (\S+)", self.get("/metrics").body.decode(), re.M)[1])

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def reserved_kib(self):
        """Addresses that are taken and may not be touched."""
        with open(f"/proc/{self.process.pid}/maps") as maps:
            ends = re.findall(r"^(\w+)-(\w+) ---p .* 0 *$", maps.read(), re.M)
        return sum(int(end, 16) - int(begin, 16) for begin, end in ends) >> 10

    def idle(self):
        """True when nobody holds a block or waits."""
        kv = self.kv()
        pool = kv["pool"]
        return not kv["sequences"] and pool["free"] + pool["cached_idle"] == pool["blocks"]

    def wait_idle(self):
        wait_until("an idle server", self.idle)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end:\n" + self.stderr()) from None
        finally:
            self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if error is None and self.check_idle and self.process.poll() is None:
                self.wait_idle()
        finally:
            code = self.end()
            if error is not None:
                print(self.stderr()[-3000:])
        if error is None and self.check_idle:
            assert code == 0, f"exit code {code}:\n{self.stderr()[-3000:]}"


def add_key(file, name, *flags):
    """A new tenant in a key file; its key."""
    out = subprocess.run([BINARY, "key", "add", name, "--file", file, *flags], check=True, text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
    return out.stdout.strip()


def tensors(model):
    """Where a GGUF file has its tensors of f32: by name, the shape and the first byte."""
    at = 8
    def take(code):
        nonlocal at
        value = struct.unpack_from("<" + code, model, at)[0]
        at += struct.calcsize("<" + code)
        return value
    def text():
        nonlocal at
        length = take("Q")
        at += length
        return model[at - length:at].decode()
    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            kind, count = take("I"), take("Q")
            return [value(kind) for _ in range(count)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])
    count, keys = take("Q"), take("Q")
    fields = {}
    for _ in range(keys):
        name = text()
        fields[name] = value(take("I"))
    found = {}
    for _ in range(count):
        name, shape = text(), [take("Q") for _ in range(take("I"))]
        kind, offset = take("I"), take("Q")
        if kind == 0:
            found[name] = (shape, offset)
    alignment = fields.get("general.alignment", 32)
    data = -(-at // alignment) * alignment
    return {name: (shape, data + offset) for name, (shape, offset) in found.items()}


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}
