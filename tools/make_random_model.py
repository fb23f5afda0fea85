#!/usr/bin/env python3
"""Random models as GGUF files, reproducible from a seed: any architecture, shape and weight format.

    python3 tools/make_random_model.py OUT.gguf --preset llama-3.2-1b --format Q4_0
    python3 tools/make_random_model.py OUT.gguf --arch qwen3 --layers 4 --dim 256 --ffn 512 \\
        --heads 8 --kv-heads 2 --head-dim 64 --vocab 1024 --context 4096 --format Q8_0

needs `gguf` and `numpy` from PyPI. Weights are normal with a spread that keeps activations of order
one, so that speed and memory are those of a real model; the text means nothing. Blocks of quantized
formats are random bits with sane scales, half of them negative or with a minimum that takes the mean
away. Q4_K_M is llama.cpp's mixture of Q4_K and Q6_K. The tokenizer is byte-level BPE (SentencePiece for gemma3) and can encode any text.
"""
import argparse
import sys

import gguf
import numpy as np
from gguf_parts import f32, write_bpe_tokenizer, write_spm_tokenizer

PRESETS = {
    # meta-llama/Llama-3.2-1B with its context of 131,072.
    "llama-3.2-1b": dict(arch="llama", layers=16, dim=2048, ffn=8192, heads=32, kv_heads=8, head_dim=64, vocab=128256, context=131072, rope_base=500000.0, tied=True),
    "llama-3.1-8b": dict(arch="llama", layers=32, dim=4096, ffn=14336, heads=32, kv_heads=8, head_dim=128, vocab=128256, context=131072, rope_base=500000.0, tied=False),
    "qwen2.5-0.5b": dict(arch="qwen2", layers=24, dim=896, ffn=4864, heads=14, kv_heads=2, head_dim=64, vocab=151936, context=32768, rope_base=1000000.0, tied=True),
    "qwen3-0.6b": dict(arch="qwen3", layers=28, dim=1024, ffn=3072, heads=16, kv_heads=8, head_dim=128, vocab=151936, context=40960, rope_base=1000000.0, tied=True),
    "gemma3-1b": dict(arch="gemma3", layers=26, dim=1152, ffn=6912, heads=4, kv_heads=1, head_dim=256, vocab=262144, context=32768, rope_base=1000000.0, tied=True, window=512),
    "tiny": dict(arch="llama", layers=2, dim=64, ffn=128, heads=4, kv_heads=2, head_dim=16, vocab=512, context=256, rope_base=10000.0, tied=True),
}
PLAIN = {"F32", "F16", "BF16"}
# Of a block of random bits: the byte offsets of its f16 scale and of its f16 minimum, the spread that
# its values have when the scale is 1, and the minimum that brings their mean to zero then. Formats
# without a minimum get scales of either sign instead.
BLOCKS = {
    "Q4_0": (0, None, 4.6, 0), "Q5_0": (0, None, 9.2, 0), "Q8_0": (0, None, 74.0, 0),
    "Q4_1": (0, 2, 4.6, -7.5), "Q5_1": (0, 2, 9.2, -15.5),
    "Q2_K": (80, 82, 13.8, 1.5), "Q3_K": (108, None, 43.0, 0), "Q4_K": (0, 2, 260.0, 7.5), "Q5_K": (0, 2, 528.0, 15.5),
    "Q6_K": (208, None, 1370.0, 0), "IQ4_NL": (0, None, 72.0, 0), "IQ4_XS": (0, None, 1330.0, 0),
}
FALLBACK = "Q8_0"  # for rows that are no multiple of a format's block


def put_half(blocks, at, values):
    blocks[:, at:at + 2] = values.astype(np.float16)[:, None].view(np.uint8)


def more_bits(layer, layers):
    """The layers whose attn_v and ffn_down llama.cpp's Q4_K_M keeps at six bits."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


class Maker:
    def __init__(self, writer, args):
        self.w, self.a = writer, args
        self.rng = np.random.default_rng(args.seed)

    def matrix(self, name, rows, cols, more_bits=False):
        """A matrix of `rows` outputs and `cols` inputs, in slices so that memory stays small."""
        fmt = self.a.format
        if fmt == "Q4_K_M": fmt = "Q6_K" if more_bits else "Q4_K"
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[fmt]][0]
        if cols % block: fmt = FALLBACK if cols % 32 == 0 else "F16"
        kind = gguf.GGMLQuantizationType[fmt]
        step = max(1, (1 << 24) // cols)
        parts = [self.rows(fmt, kind, min(step, rows - r), cols) for r in range(0, rows, step)]
        self.w.add_tensor(name, np.concatenate(parts), raw_dtype=kind)

    def rows(self, fmt, kind, rows, cols):
        """Weights with a standard deviation of 1 / sqrt(cols)."""
        if fmt in PLAIN:
            x = self.rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(cols ** -0.5)
            return gguf.quants.quantize(x, kind) if fmt != "F32" else x
        block, size = gguf.GGML_QUANT_SIZES[kind]
        scale_at, min_at, spread, minimum = BLOCKS[fmt]
        data = np.frombuffer(self.rng.bytes(rows * cols // block * size), dtype=np.uint8).reshape(-1, size).copy()
        scales = self.rng.uniform(0.6, 1.3, len(data)).astype(np.float32) * np.float32(cols ** -0.5 / spread)
        if min_at is None: scales *= 1 - 2 * (data[:, -1] & 1).astype(np.float32)
        else: put_half(data, min_at, scales * np.float32(minimum))
        put_half(data, scale_at, scales)
        return data.reshape(rows, cols // block * size)

    def vector(self, name, size, around=1.0, spread=0.1):
        self.w.add_tensor(name, f32(around + spread * self.rng.standard_normal(size)))

    def tensors(self):
        a = self.a
        q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
        self.matrix("token_embd.weight", a.vocab, a.dim, more_bits=a.tied)
        if a.arch == "llama" and a.llama3_rope:
            pairs = np.arange(0, a.head_dim, 2)
            wavelength = 2 * np.pi * a.rope_base ** (pairs / a.head_dim)
            low, high, factor, original = 1.0, 4.0, 32.0, 8192.0
            smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
            self.w.add_tensor("rope_freqs.weight", f32(1.0 / ((1 - smooth) / factor + smooth)))
        for l in range(a.layers):
            p = f"blk.{l}."
            self.vector(p + "attn_norm.weight", a.dim)
            self.matrix(p + "attn_q.weight", q, a.dim)
            self.matrix(p + "attn_k.weight", kv, a.dim)
            self.matrix(p + "attn_v.weight", kv, a.dim, more_bits(l, a.layers))
            if a.arch == "qwen2":
                for n, size in (("q", q), ("k", kv), ("v", kv)): self.vector(f"{p}attn_{n}.bias", size, 0.0)
            if a.arch in ("qwen3", "gemma3"):
                self.vector(p + "attn_q_norm.weight", a.head_dim)
                self.vector(p + "attn_k_norm.weight", a.head_dim)
            self.matrix(p + "attn_output.weight", a.dim, q)
            if a.arch == "gemma3": self.vector(p + "post_attention_norm.weight", a.dim)
            self.vector(p + "ffn_norm.weight", a.dim)
            self.matrix(p + "ffn_gate.weight", a.ffn, a.dim)
            self.matrix(p + "ffn_up.weight", a.ffn, a.dim)
            self.matrix(p + "ffn_down.weight", a.dim, a.ffn, more_bits(l, a.layers))
            if a.arch == "gemma3": self.vector(p + "post_ffw_norm.weight", a.dim)
        self.vector("output_norm.weight", a.dim)
        if not a.tied: self.matrix("output.weight", a.vocab, a.dim, more_bits=True)


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--preset", choices=PRESETS)
    p.add_argument("--arch", choices=["llama", "qwen2", "qwen3", "gemma3"])
    for name in ("layers", "dim", "ffn", "heads", "kv-heads", "head-dim", "vocab", "context", "window"):
        p.add_argument("--" + name, type=int)
    p.add_argument("--rope-base", type=float)
    p.add_argument("--untied", dest="tied", action="store_false", default=None)
    p.add_argument("--format", default="Q4_0", choices=sorted(PLAIN | BLOCKS.keys() | {"Q4_K_M"}))
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    values = dict(arch="llama", layers=2, dim=64, ffn=128, heads=4, kv_heads=2, head_dim=16, vocab=512, context=256, rope_base=10000.0, tied=True, window=0)
    if a.preset: values.update(PRESETS[a.preset])
    for key, value in values.items():
        if getattr(a, key) is None: setattr(a, key, value)
    a.llama3_rope = bool(a.preset and a.preset.startswith("llama-3"))
    if a.heads % a.kv_heads: sys.exit("--heads must be a multiple of --kv-heads")
    return a


def file_type(fmt):
    """general.file_type: some readers want it."""
    small = fmt + "_S" if fmt in ("Q3_K", "Q4_K", "Q5_K") else fmt
    return gguf.LlamaFileType["ALL_F32" if fmt == "F32" else "MOSTLY_" + small]


def main():
    a = parse()
    w = gguf.GGUFWriter(a.out, a.arch)
    w.add_name(f"random {a.preset or a.arch} {a.format} seed {a.seed}")
    w.add_file_type(file_type(a.format))
    w.add_block_count(a.layers)
    w.add_context_length(a.context)
    w.add_embedding_length(a.dim)
    w.add_feed_forward_length(a.ffn)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_key_length(a.head_dim)
    w.add_value_length(a.head_dim)
    w.add_rope_dimension_count(a.head_dim)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(a.rope_base)
    if a.window: w.add_sliding_window(a.window)
    if a.arch == "gemma3": write_spm_tokenizer(w, a.vocab)
    else: write_bpe_tokenizer(w, a.vocab, "llama-bpe" if a.arch == "llama" else "qwen2")
    Maker(w, a).tensors()
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
