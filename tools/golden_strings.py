"""Strings for the tokenizer tests, from a seed: many scripts, emoji, control characters, long runs of
spaces, numbers, code, and bytes that are no UTF-8. Left out are only the byte sequences that lenient
decoders take for characters although UTF-8 forbids them (overlong forms, surrogates, above U+10FFFF).
"""

SCRIPTS = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A)], "latin-ext": [(0xC0, 0x17F)], "greek": [(0x391, 0x3C9)],
    "cyrillic": [(0x410, 0x44F)], "armenian": [(0x531, 0x556), (0x561, 0x586)], "hebrew": [(0x5D0, 0x5EA)],
    "arabic": [(0x620, 0x64A)], "devanagari": [(0x904, 0x94D)], "bengali": [(0x985, 0x9B9), (0x9BE, 0x9CD)],
    "gujarati": [(0xA85, 0xAB9)], "tamil": [(0xB85, 0xBB9)], "telugu": [(0xC05, 0xC39)],
    "thai": [(0xE01, 0xE3A), (0xE40, 0xE4E)], "tibetan": [(0xF40, 0xF6C)], "myanmar": [(0x1000, 0x103F)],
    "georgian": [(0x10D0, 0x10FA)], "ethiopic": [(0x1200, 0x1248)], "cherokee": [(0x13A0, 0x13F4)],
    "khmer": [(0x1780, 0x17B3)], "hiragana": [(0x3041, 0x3096)], "katakana": [(0x30A1, 0x30FA)],
    "han": [(0x4E00, 0x9FA5)], "hangul": [(0xAC00, 0xD7A3)],
}
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "❤️", "🤖", "🧑🏿‍🚀", "⚡", "✨🔥", "🫠", "1️⃣"]
SPACES = [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u180e", "\u0085", "\v", "\f"]
PUNCT = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "„", "«", "»", "¿", "。", "、", "€", "№", "°"]
CODE = ["def f(x):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {", "SELECT * FROM t WHERE a = 'b';",
        "\t\tif x != y && z:\n", "<div class=\"a\">&nbsp;</div>", "{\"key\": [1, 2.5e-3, null]}", "https://example.org/?q=1&r=%20"]
WORDS = ("the of and a to in is you that it he was for on are as with his they I'll don't we've it's CAN'T "
         "World hello Hugging capital tokens cache 1984 3.14159 0x1F 1,000,000 e.g. naïve façade Straße").split()
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<|im_start|"]
# Lead and continuation bytes that are wrong for every decoder wherever they stand alone.
BAD = list(range(0x80, 0xC0)) + list(range(0xC2, 0xE0)) + [0xE1, 0xE5, 0xEF, 0xF1, 0xF3] + list(range(0xF8, 0x100))


def word(r):
    ranges = SCRIPTS[r.choice(list(SCRIPTS))]
    out = []
    for _ in range(r.randint(1, 9)):
        lo, hi = r.choice(ranges)
        out.append(chr(r.randint(lo, hi)))
    return "".join(out)


def piece(r):
    k = r.random()
    if k < 0.30: return word(r)
    if k < 0.50: return r.choice(WORDS)
    if k < 0.58: return r.choice(SPACES) * r.choice([1, 1, 2, 3, 7, 40])
    if k < 0.66: return "".join(r.choice(PUNCT) for _ in range(r.randint(1, 4)))
    if k < 0.72: return str(r.randint(0, 10 ** r.randint(1, 12)))
    if k < 0.78: return r.choice(EMOJI)
    if k < 0.82: return r.choice(CODE)
    if k < 0.86: return chr(r.choice(list(range(0, 32)) + [127] + list(range(0x80, 0xA0))))
    if k < 0.88: return chr(r.choice([0x300, 0x301, 0x323, 0x20D7, 0xFE0F, 0x200D, 0xFEFF, 0xFFFD, 0x1F1E6]))
    if k < 0.90: return r.choice(["a", "!", "\n", "=", "-", "ab", "ñ"]) * r.randint(10, 120)
    if k < 0.94: return " "
    return r.choice(WORDS) + " " + word(r)


def text(r):
    parts = []
    for _ in range(r.randint(1, 12)):
        parts.append(piece(r))
        if r.random() < 0.5: parts.append(" ")
    out = "".join(parts).encode()
    if r.random() < 0.10:  # no UTF-8
        b = bytearray(out)
        for _ in range(r.randint(1, 4)):
            b.insert(r.randint(0, len(b)), r.choice(BAD))
        out = bytes(b)
        if not agreed(out): return text(r)
    return out


def agreed(b):
    """No sequence of lead and continuation bytes that lenient decoders accept and strict ones do not."""
    lenient, i = 0, 0
    while i < len(b):
        n = 1 if b[i] < 0x80 else 0 if b[i] < 0xC0 else 2 if b[i] < 0xE0 else 3 if b[i] < 0xF0 else 4 if b[i] < 0xF8 else 0
        if n > 1 and len(b) >= i + n and all(0x80 <= c < 0xC0 for c in b[i + 1:i + n]):
            try: b[i:i + n].decode()
            except UnicodeDecodeError: return False
            i += n
        else:
            i += 1
    return True
