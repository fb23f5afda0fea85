"""What the scripts that write GGUF files share: tokenizers, and names of the tensors."""
import gguf
import numpy as np


def byte_alphabet():
    """GPT-2's printable character of each byte (Radford et al. 2019)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    out, extra = {}, 0
    for b in range(256):
        if b in own:
            out[b] = chr(b)
        else:
            out[b] = chr(256 + extra)
            extra += 1
    return out


def write_bpe_tokenizer(w, vocab, pre):
    """Byte-level BPE: all bytes, a few merges, <|im_start|>, <|im_end|> and filler up to `vocab`."""
    alphabet = byte_alphabet()
    tokens = [alphabet[b] for b in range(256)]
    merges = []
    for word in ["the", "and", "ing", "er", "in", "Ġthe", "Ġa", "Ġin"]:
        left = word[0]
        for c in word[1:]:
            if left + c not in tokens:
                merges.append(f"{left} {c}")
                tokens.append(left + c)
            left += c
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert vocab >= len(tokens) + len(special), "the vocabulary is too small"
    types = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * 3
    first = len(tokens)
    tokens += special
    while len(tokens) < vocab:
        tokens.append(f"<|unused_{len(tokens)}|>")
        types.append(gguf.TokenType.UNUSED)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(first)
    w.add_eos_token_id(first + 2)
    w.add_add_bos_token(False)
    w.add_chat_template("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
                        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def write_spm_tokenizer(w, vocab):
    """SentencePiece BPE with byte fallback, letters, and filler up to `vocab`."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.BYTE] * 256
    scores = [0.0] * len(tokens)
    for i, piece in enumerate(["▁", "e", "t", "h", "th", "▁t", "he", "▁the", "a", "n"]):
        tokens.append(piece)
        types.append(gguf.TokenType.NORMAL)
        scores.append(-float(i))
    assert vocab >= len(tokens), "the vocabulary is too small"
    while len(tokens) < vocab:
        tokens.append(f"<unused{len(tokens)}>")
        types.append(gguf.TokenType.UNUSED)
        scores.append(-1000.0)
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_unk_token_id(3)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)


def permute_for_norm_rope(weight, heads):
    """Rows of a query or key projection from (i, i + d/2) pairs to (2i, 2i + 1) pairs: the order that
    GGUF files of the llama architecture have."""
    rows = weight.shape[0]
    d = rows // heads
    return weight.reshape(heads, 2, d // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def f32(x):
    return np.ascontiguousarray(x, dtype=np.float32)
