"""The rows of the table: shapes, sides and targets.

A target is a ratio to a peer of the same run, or "limit": percent of what the machine's probes allow, as
`kvasir bench batch` counts it, or a figure of Kvasir alone that must not be exceeded ("s", "steps").
"""
from dataclasses import dataclass, field

LLAMA, OPENVINO = "llama.cpp", "OpenVINO"
SHORT = 16  # prompt tokens before a decode row


@dataclass
class Row:
    name: str
    title: str
    metric: str  # prefill, decode: tokens/s; again: ms; start: s; memory: MiB; gain: a ratio
    model: str = "1b-q4_0.gguf"
    pp: int = SHORT
    tg: int = 0
    batch: int = 1
    peers: tuple = (LLAMA,)
    build: str = "native"  # of llama.cpp
    isa: str = ""  # KVASIR_ISA
    must: dict = field(default_factory=dict)
    aim: dict = field(default_factory=dict)
    flags_needed: bool = False  # runs only with flags for Kvasir given

    def unit(self):
        return {"prefill": "tokens/s", "decode": "tokens/s", "again": "ms", "start": "s", "memory": "MiB", "gain": "x"}[self.metric]


BOTH = (LLAMA, OPENVINO)
ROWS = [
    Row("p512", "prefill 512", "prefill", pp=512, peers=BOTH, must={LLAMA: 4, OPENVINO: 1.6}, aim={LLAMA: 8, "limit": 40}),
    Row("p2048", "prefill 2048", "prefill", pp=2048, peers=BOTH, must={LLAMA: 4.5}, aim={LLAMA: 9}),
    Row("p8192", "prefill 8192", "prefill", pp=8192, peers=BOTH, must={LLAMA: 6, OPENVINO: 2}, aim={LLAMA: 11}),
    Row("faster-p512", "prefill 512, faster mode", "prefill", pp=512, must={LLAMA: 5.5}, aim={LLAMA: 9}, flags_needed=True),
    Row("faster-p2048", "prefill 2048, faster mode", "prefill", pp=2048, must={LLAMA: 6}, aim={LLAMA: 10}, flags_needed=True),
    Row("faster-p8192", "prefill 8192, faster mode", "prefill", pp=8192, must={LLAMA: 8}, aim={LLAMA: 12}, flags_needed=True),
    Row("d1", "decode, 1 sequence", "decode", tg=128, peers=BOTH, must={LLAMA: 1.2, "limit": 80}, aim={LLAMA: 1.5, "limit": 95}),
    Row("d8", "decode, 8 sequences", "decode", tg=128, batch=8, peers=BOTH, must={LLAMA: 2.5}, aim={LLAMA: 3.5}),
    Row("d32", "decode, 32 sequences", "decode", tg=128, batch=32, peers=BOTH, must={LLAMA: 4, OPENVINO: 2.5}, aim={LLAMA: 6}),
    Row("ctx8192", "decode after 8,192 tokens", "decode", pp=8192, tg=64, peers=(), must={"limit": 85}, aim={"limit": 95}),
    Row("ctx32768", "decode after 32,768 tokens", "decode", pp=32768, tg=64, peers=(), must={"limit": 85}, aim={"limit": 95}),
    Row("q4km-p512", "Q4_K_M: prefill 512", "prefill", "1b-q4_k_m.gguf", pp=512, must={LLAMA: 3.5}, aim={LLAMA: 6}),
    Row("q4km-d1", "Q4_K_M: decode", "decode", "1b-q4_k_m.gguf", tg=128, must={LLAMA: 1.3}, aim={LLAMA: 1.7}),
    Row("q8-p512", "Q8_0: prefill 512", "prefill", "1b-q8_0.gguf", pp=512, must={LLAMA: 3.5}),
    Row("q8-d1", "Q8_0: decode", "decode", "1b-q8_0.gguf", tg=128, must={"limit": 90}, aim={"limit": 95}),
    Row("bf16-p512", "bf16: prefill 512", "prefill", "1b-bf16.gguf", pp=512, must={LLAMA: 8}, aim={"limit": 65}),
    Row("bf16-d1", "bf16: decode", "decode", "1b-bf16.gguf", tg=128, must={"limit": 90}, aim={"limit": 95}),
    Row("smol-p512", "SmolLM2-135M Q4_1: prefill 512", "prefill", "smollm2", pp=512, must={LLAMA: 4}, aim={LLAMA: 6}),
    Row("smol-d1", "SmolLM2-135M Q4_1: decode", "decode", "smollm2", tg=128, must={LLAMA: 1.5}, aim={LLAMA: 2}),
    Row("again", "the same 8,192 tokens again, to the first token", "again", pp=8192, tg=16, peers=(OPENVINO,), must={"steps": 2}, aim={"steps": 1}),
    Row("start-smol", "SmolLM2-135M: start to first token", "start", "smollm2", must={"s": 0.3}, aim={"s": 0.15}),
    Row("start-1b", "1B: start to first token", "start", must={"s": 1.0}, aim={"s": 0.5}),
    Row("memory-smol", "SmolLM2-135M: resident after 512 + 128 tokens", "memory", "smollm2", pp=512, tg=128),
    Row("avx512-p512", "AVX-512 without AMX: prefill 512", "prefill", pp=512, build="avx512", isa="avx512", must={LLAMA: 1.2}, aim={LLAMA: 2}),
    Row("avx512-d1", "AVX-512 without AMX: decode", "decode", tg=128, build="avx512", isa="avx512", must={LLAMA: 1}, aim={LLAMA: 1.3}),
    Row("avx2-p512", "AVX2: prefill 512", "prefill", pp=512, build="avx2", isa="avx2", must={LLAMA: 1.2}, aim={LLAMA: 2}),
    Row("avx2-d1", "AVX2: decode", "decode", tg=128, build="avx2", isa="avx2", must={LLAMA: 1}, aim={LLAMA: 1.3}),
    Row("threads", "prefill 512: all threads against one", "gain", pp=512, peers=(), must={"gain": 92}, aim={"gain": 97}),
]


def candidates(peer, row, threads):
    """Settings of a peer of which the best counts."""
    if row.metric in ("start", "memory"): return [dict(threads=threads, ubatch=512, flash=1)]
    if peer == LLAMA:
        unified = (False, True) if row.batch > 1 else (False,)
        # Larger than the prompt is no other setting than the prompt's own size.
        sizes = [u for u in (256, 512, 2048) if u <= max(512, row.pp)] if row.metric == "prefill" else [512]
        if row.pp > 4096: sizes = [512, 2048]
        return [dict(threads=threads, ubatch=u, flash=f, unified=k) for u in sizes for f in (1, 0) for k in unified]
    if peer == OPENVINO:
        steps = [s for s in (512, 2048) if s <= max(512, row.pp)] if row.metric == "prefill" else [512]
        return [dict(threads=threads, step=s, kv=kv) for s in steps for kv in ("u8", "bf16")]
    raise ValueError(peer)
