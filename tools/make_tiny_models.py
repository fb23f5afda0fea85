#!/usr/bin/env python3
"""Tiny random models of each architecture as GGUF in F32, and the logits that `transformers` gives
for a fixed sequence of tokens.

    python3 tools/make_tiny_models.py tests/data/tiny

needs `torch`, `transformers` and `gguf` from PyPI. NAME.gguf is the model; NAME.logits holds int32
tokens, vocabulary, the tokens, then f32 logits [tokens][vocabulary].
"""
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers as tf
from gguf_parts import f32, permute_for_norm_rope, write_bpe_tokenizer, write_spm_tokenizer

VOCAB, TOKENS = 288, 40
SHAPE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


MODELS = {
    "llama": ("llama", tf.LlamaForCausalLM, tf.LlamaConfig(**SHAPE, rope_parameters=rope())),
    "llama-tied-mqa": ("llama", tf.LlamaForCausalLM, tf.LlamaConfig(**{**SHAPE, "tie_word_embeddings": True, "num_key_value_heads": 1}, head_dim=16, rope_parameters=rope(theta=5e5))),
    "llama-linear": ("llama", tf.LlamaForCausalLM, tf.LlamaConfig(**SHAPE, rope_parameters=rope("linear", factor=4.0))),
    "llama-llama3": ("llama", tf.LlamaForCausalLM, tf.LlamaConfig(**SHAPE, rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "llama-yarn": ("llama", tf.LlamaForCausalLM, tf.LlamaConfig(**SHAPE, head_dim=32, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16))),
    "mistral": ("llama", tf.MistralForCausalLM, tf.MistralConfig(**SHAPE, head_dim=8, sliding_window=10, rope_parameters=rope())),
    "qwen2": ("qwen2", tf.Qwen2ForCausalLM, tf.Qwen2Config(**SHAPE, rope_parameters=rope(theta=1e6))),
    "qwen3": ("qwen3", tf.Qwen3ForCausalLM, tf.Qwen3Config(**SHAPE, head_dim=16, rope_parameters=rope(theta=1e6))),
    "gemma3": ("gemma3", tf.Gemma3ForCausalLM, tf.Gemma3TextConfig(
        **{**SHAPE, "num_hidden_layers": 4, "num_key_value_heads": 1, "tie_word_embeddings": True}, head_dim=16,
        query_pre_attn_scalar=16, sliding_window=8, hidden_activation="gelu_pytorch_tanh",
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"sliding_attention": rope(theta=1e4), "full_attention": rope("linear", theta=1e6, factor=2.0)})),
}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
}


def layer_name(arch, part):
    if part in NAMES: return NAMES[part]
    if part == "post_attention_layernorm": return "post_attention_norm" if arch == "gemma3" else "ffn_norm"
    return {"pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}[part]


def tensor_name(arch, name):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in top: return top[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{layer_name(arch, part)}.{kind}"


def randomize(model):
    g = torch.Generator().manual_seed(42)
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data = 1.0 + 0.3 * torch.randn(p.shape, generator=g) if "Gemma" not in type(model).__name__ else 0.3 * torch.randn(p.shape, generator=g)
        elif name.endswith("bias"):
            p.data = 0.3 * torch.randn(p.shape, generator=g)
        else:
            p.data = torch.randn(p.shape, generator=g) * (1.0 if "embed" in name else 1.5 / p.shape[1] ** 0.5)


def write(path, arch, config, model, **split):
    w = gguf.GGUFWriter(path, arch, **split)
    w.add_name(f"tiny {path.stem}")
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    rope_config = config.rope_parameters.get("full_attention", config.rope_parameters)
    w.add_rope_freq_base(rope_config["rope_theta"])
    if rope_config["rope_type"] in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if rope_config["rope_type"] == "linear" else gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope_config["factor"])
    if rope_config["rope_type"] == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope_config["original_max_position_embeddings"])
    if getattr(config, "sliding_window", None) and arch != "qwen2" and arch != "qwen3": w.add_sliding_window(config.sliding_window)
    if arch == "gemma3":
        w.add_array(f"{arch}.attention.sliding_window_pattern", [t == "sliding_attention" for t in config.layer_types])
        write_spm_tokenizer(w, VOCAB)
    else:
        write_bpe_tokenizer(w, VOCAB, "llama-bpe" if arch == "llama" else "qwen2")
    if rope_config["rope_type"] == "llama3":
        plain = 1.0 / (rope_config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim))
        w.add_tensor("rope_freqs.weight", f32(plain / model.model.rotary_emb.inv_freq.numpy()))
    for name, p in model.named_parameters():
        data = p.data.numpy()
        if arch == "llama" and ".q_proj." in name: data = permute_for_norm_rope(data, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name: data = permute_for_norm_rope(data, config.num_key_value_heads)
        if arch == "gemma3" and "norm" in name: data = data + 1.0
        w.add_tensor(tensor_name(arch, name), f32(data))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tokens = np.random.default_rng(7).integers(0, 256, TOKENS, dtype=np.int32)
    for name, (arch, kind, config) in MODELS.items():
        config._attn_implementation = "eager"
        model = kind(config).eval().float()
        randomize(model)
        with torch.no_grad():
            logits = model(torch.tensor(tokens[None].astype(np.int64))).logits[0].float().numpy()
        write(folder / f"{name}.gguf", arch, config, model)
        if name == "llama": write(folder / "split.gguf", arch, config, model, split_max_tensors=8)
        with open(folder / f"{name}.logits", "wb") as out:
            np.array([TOKENS, VOCAB], dtype=np.int32).tofile(out)
            tokens.tofile(out)
            logits.tofile(out)
        print(name, logits.std(), np.abs(logits).max())


main()
