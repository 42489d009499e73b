"""Every character that counts as stable: the fast engine cuts text around it as the library does."""

import numpy as np
import pytest

from megarc.corpus.tokenizer.unicode_stability import is_stable, tells_kinds, unstable

GPT_2 = None  # ByteLevel's own pattern
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?%s(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
O200K = (
    _WORD % f"{_UPPER}*{_LOWER}+"
    + _WORD % f"{_UPPER}+{_LOWER}*"
    + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def telltale(pattern):
    """A byte-level BPE whose only merges join a character's edge with its neighbour: ids tell where it was cut."""
    library = pytest.importorskip("tokenizers")
    pre, byte_level = library.pre_tokenizers, library.pre_tokenizers.ByteLevel
    alphabet = sorted(byte_level.alphabet())
    shown = {text: code for code, text in byte_shown().items()}
    edges = [text for text in alphabet if shown[text] >= 0x80]
    merges = [(edge, '"') for edge in edges if shown[edge] < 0xC0]
    merges += [("b", edge) for edge in edges if shown[edge] >= 0xC2]
    vocabulary = {text: place for place, text in enumerate(alphabet)}
    vocabulary |= {a + b: len(alphabet) + place for place, (a, b) in enumerate(merges)}
    tokenizer = library.Tokenizer(library.models.BPE(vocabulary, merges))
    if pattern is None:
        tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    else:
        split = pre.Split(library.Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def byte_shown():
    """GPT-2's letters for bytes: those that can be seen stand for themselves, the others come after U+00FF."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [code for code in range(256) if code not in seen]
    return {code: chr(code) for code in seen} | {code: chr(256 + i) for i, code in enumerate(hidden)}


@pytest.mark.parametrize("pattern", [GPT_2, LLAMA_3, O200K], ids=["gpt2", "llama3", "o200k"])
def test_engines_cut_alike_around_stable_characters(pattern):
    gigatoken = pytest.importorskip(
        "gigatoken", reason="gigatoken is not installed: pip install 'megarc[fast]'"
    )
    exact = telltale(pattern)
    encode = gigatoken.Tokenizer.from_json(exact.to_str().encode()).backend.encode
    assert tells_kinds(exact.to_str().encode()) is (pattern is O200K)
    codes = [code for code in np.flatnonzero(~unstable(pattern is O200K)).tolist() if code >= 0x80]
    differing, texts = [], [f'b{chr(code)}"' for code in codes]
    for code, text, expected in zip(codes, texts, exact.encode_batch_fast(texts), strict=True):
        if not np.array_equal(encode(text), expected.ids):
            differing.append(hex(code))
    assert len(codes) > 60_000 and differing == []
    assert encode('b\ua7cf"').tolist() != exact.encode('b\ua7cf"').ids  # it does tell


def test_what_is_stable():
    for text in ("", "plain", "déjà", "日本語", "\U0001f600", "\U0001f468\u200d\U0001f469", "\ufeff\u2028"):
        assert is_stable(text, kinds=True) and is_stable(text, kinds=False), text
    for text in (
        "x\ua7cf",
        "\u0378",
        "\U0001e6c0",
        "\U00032400",
        "\U0010ffff",
        "é" * 99 + "\ua7cf",
        "é\ud800",
    ):
        assert not is_stable(text, kinds=True) and not is_stable(text, kinds=False), text
    assert is_stable("1º 2ª", kinds=False) and not is_stable("1º 2ª", kinds=True)


def test_what_tells_kinds_of_letters_apart():
    for text in (rb'"\\p{Lu}+"', rb'"[^\\P{Ll}]"', b'{"type": "Lowercase"}'):
        assert tells_kinds(text), text
    for text in (rb'"\\p{L}+|\\p{N}{1,3}"', b'{"type": "ByteLevel"}', b""):
        assert not tells_kinds(text), text
