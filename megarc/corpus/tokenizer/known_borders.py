"""Of which tokenizers it is known where their texts can be cut (`text_borders.py`).

Byte-level BPE: the patterns below never put a letter, digit or sign and a space behind it into one piece, and none
looks back.
SentencePiece's kind of BPE, also in Hugging Face's format: no token has a space behind another character, so no
merge crosses the border. A unigram model is left out: its library adds up the scores of the whole text in float32,
so the ids of a long document depend on what lies far before them.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from megarc.corpus.tokenizer.base import Tokenizer
from megarc.corpus.tokenizer.text_borders import TextBorders

_SPACE = "\u2581"
_WORD_ENDS = (  # ASCII's letters and digits, and some letters of other alphabets that every version of Unicode has
    "0-9A-Za-z\u0391-\u03a1\u03b1-\u03c9\u0410-\u044f\u05d0-\u05ea\u0621-\u063a\u0905-\u0939\u0e01-\u0e30"
    "\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
_SIGNS = r"!-/:-@\[-`{-~"  # of ASCII; some patterns join them with a line's end
_BEFORE_SPACES = re.compile(f"[{_WORD_ENDS}{_SIGNS}](?= )|[{_WORD_ENDS}](?=\n)")
_BEFORE_SPACE = re.compile(f"[{_WORD_ENDS}](?= )")
_BETWEEN_WORDS = re.compile(f"[{_WORD_ENDS}](?= [{_WORD_ENDS}])")
_CONTRACTIONS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?%s(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
_SPLITS = {  # patterns of pieces
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"\p{N}{1,3}".join(_CONTRACTIONS),  # Llama 3
    r"\p{N}".join(_CONTRACTIONS),  # Qwen 2
    _WORD % f"{_UPPER}*{_LOWER}+"  # o200k
    + _WORD % f"{_UPPER}+{_LOWER}*"
    + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_NUMBERS = {r"\p{N}{1,3}", r"\p{N}"}  # they change nothing at such a border
_BUILT_IN = {"identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"}  # SentencePiece's own normalisations
_BPE = 2  # a model's type in SentencePiece's files
_INNER_SPACE = re.compile(f"[^{_SPACE}]{_SPACE}")


def known_borders(tokenizer: Tokenizer) -> TextBorders | None:
    """Where texts of this tokenizer can be cut; None: that is not known."""
    if tokenizer.source is None:
        return None
    if tokenizer.kind == "huggingface":
        return _of_huggingface(orjson.loads(tokenizer.source))
    return _of_sentencepiece(tokenizer)


def _of_huggingface(tree: dict[str, Any]) -> TextBorders | None:
    model = tree["model"]
    plain = not any(
        model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if model.get("type", "BPE") != "BPE" or not plain:
        return None
    steps = _steps(tree.get("pre_tokenizer"), "pretokenizers")
    normalizers = _steps(tree.get("normalizer"), "normalizers")
    if steps and all(step["type"] != "Metaspace" for step in steps):
        found = _of_byte_level(steps, normalizers)
    else:
        found = _of_spaces(steps, normalizers, model["vocab"])
    added = tree.get("added_tokens") or []
    return found if found and not any(_in_the_way(token, found) for token in added) else None


def _in_the_way(token: dict[str, Any], borders: TextBorders) -> bool:
    """Whether an added token, which is looked for before anything else, may lie across a border or needs its space."""
    text = token["content"]
    takes = token.get("rstrip") and borders.pattern.search(text + " ")
    # it may be the space
    needs = borders.gap and any(map(borders.pattern.search, (f"x {text} x", f"x{text}x")))
    return bool(takes or needs or borders.pattern.search(text))


def _of_byte_level(steps: list[dict[str, Any]], normalizers: list[dict[str, Any]]) -> TextBorders | None:
    *splits, last = steps
    kinds = [_split_kind(step) for step in splits]
    if last["type"] != "ByteLevel" or last.get("add_prefix_space") or None in kinds:
        return None
    cuts = "words" in kinds or last.get("use_regex", True)
    return (
        TextBorders(_BEFORE_SPACES) if cuts and all(step["type"] == "NFC" for step in normalizers) else None
    )


def _split_kind(step: dict[str, Any]) -> str | None:
    """``words``: it cuts before a space; ``numbers``: it does nothing there; None: not known."""
    if step["type"] == "Digits":
        return "numbers"
    pattern = (step.get("pattern") or {}).get("Regex")
    if step["type"] != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return None
    return "words" if pattern in _SPLITS else "numbers" if pattern in _NUMBERS else None


def _of_spaces(
    steps: list[dict[str, Any]], normalizers: list[dict[str, Any]], vocabulary: dict[str, int]
) -> TextBorders | None:
    """Llama 2's kind: a space before each text, spaces shown as U+2581."""
    if _SPACE not in vocabulary or any(map(_INNER_SPACE.search, vocabulary)):
        return None
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = {"type": "Prepend", "prepend": _SPACE}
    if not steps and normalizers == [prepend, replace]:
        return TextBorders(_BETWEEN_WORDS, gap=1)
    if not steps and normalizers == [replace]:
        return TextBorders(_BEFORE_SPACE)
    scheme = steps[0].get("prepend_scheme") if len(steps) == 1 and not normalizers else None
    if scheme is None or steps[0].get("replacement") != _SPACE:
        return None
    return TextBorders(_BEFORE_SPACE) if scheme == "never" else TextBorders(_BETWEEN_WORDS, gap=1)


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """A part of a tokenizer.json as a list: a Sequence's steps, the part alone, or nothing."""
    if part is None:
        return []
    return list(part[name]) if part["type"] == "Sequence" else [part]


def _of_sentencepiece(tokenizer: Tokenizer) -> TextBorders | None:
    from megarc.corpus.tokenizer.sentencepiece import SentencePieceTokenizer

    try:
        from sentencepiece import sentencepiece_model_pb2

        parts: Any = sentencepiece_model_pb2
    except ImportError:  # it needs protobuf
        return None
    assert isinstance(tokenizer, SentencePieceTokenizer)
    model = parts.ModelProto.FromString(tokenizer.source)
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    strips_only = normalizer.remove_extra_whitespaces and not normalizer.add_dummy_prefix
    if (
        trainer.model_type != _BPE
        or trainer.treat_whitespace_as_suffix
        or strips_only
        or not normalizer.escape_whitespaces
        or (normalizer.name or "identity") not in _BUILT_IN
        or any(_INNER_SPACE.search(piece.piece) for piece in model.pieces)
        or all(piece.piece != _SPACE for piece in model.pieces)
    ):
        return None
    if normalizer.add_dummy_prefix:
        return TextBorders(_BETWEEN_WORDS, gap=1, normalize=tokenizer.normalize)
    return TextBorders(_BEFORE_SPACE, normalize=tokenizer.normalize)
