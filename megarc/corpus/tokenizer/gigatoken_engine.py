"""A faster engine behind an exact tokenizer: used only while it gives the very same ids.

gigatoken encodes BPE many times faster than the libraries that own the formats.
It is compared with them on hostile texts when it is loaded, and on documents
drawn at random while it works. The first difference ends its use, and a job that
it worked on begins again without it. Characters on whose class Unicode's versions
differ go to the exact library at once, with the words around them where borders
of tokens are known, else with their document.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from megarc.corpus.tokenizer.base import RESERVED, Tokenizer, join, require_whole
from megarc.corpus.tokenizer.in_parts import EngineError, InParts
from megarc.corpus.tokenizer.unicode_stability import tells_kinds, unstable_places
from megarc.process_memory import give_back, resident_megabytes

VERSIONS = ("0.10.0",)  # of gigatoken that were tried
_MOST_MEGABYTES = 135  # resident, of a process: then a new engine, without a cache, takes over
_LEAST_CHARACTERS = 4_000_000  # that an engine sees before another may take over
_UNIGRAM, _BPE = 1, 2  # in SentencePiece's model files
_AUDIT_SHARE = 0.03  # of the engine's own time
_GUESSED_RATE = 1e6  # characters a second, of the exact library
# of a document, at most: the exact library takes seconds and 50 bytes for each more
_AUDIT_CHARACTERS = 1 << 16

Encode = Callable[[str], Any]


def with_fast_engine(tokenizer: Tokenizer, say: Callable[[str], None]) -> Tokenizer:
    """``tokenizer`` by gigatoken, or by its library in parts where texts are long; ``say`` gets the choice and why."""
    if tokenizer.source is None:
        return tokenizer  # bytes need no engine
    try:
        build = _engine(tokenizer)
        encode = build()
        _compare(encode, tokenizer)
    except _NoEngineError as reason:
        say(f"encoding with the plain {tokenizer.kind} library ({reason})")
        return InParts(tokenizer)
    say("encoding with gigatoken, compared with the plain library now and by random audit")
    return _Audited(tokenizer, build, encode)


class _NoEngineError(Exception):
    """Why the plain library has to do."""


class _Audited(Tokenizer):
    """The fast engine's ids; now and then a document's are compared with the library's."""

    def __init__(self, exact: Tokenizer, build: Callable[[], Encode], encode: Encode) -> None:
        self.exact, self._build, self._encode = exact, build, encode
        self._in_parts = InParts(exact)
        self._characters = 0  # that this engine has seen
        self.kind, self.digest = exact.kind, exact.digest
        self._kinds = tells_kinds(exact.source or b"")
        self.vocabulary_size, self.reserved = exact.vocabulary_size, exact.reserved
        self.end = exact.end
        self._credit = 0.0  # seconds that may go into audits
        self._audits = 0
        self._chance = random.Random()

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        start = time.perf_counter()
        if self._characters > _LEAST_CHARACTERS and resident_megabytes() > _MOST_MEGABYTES:
            self._renew()
        ids = [self._ids(text) for text in texts]
        self._characters += sum(map(len, texts))
        self._credit += _AUDIT_SHARE * (time.perf_counter() - start)
        if texts:
            self._audit(texts, ids)
        return join(ids)

    def _ids(self, text: str) -> Any:
        if self.kind == "sentencepiece":  # it cuts at spaces alone, whatever class a character has
            return self._encode(text)
        places = unstable_places(text, self._kinds)
        if not len(places):
            return self._encode(text)
        require_whole(text)
        borders = self._in_parts.borders
        if borders is None:
            return self.exact.encode_documents([text])[0]
        parts, behind = [], 0
        for begin, end in borders.around(text, places.tolist()):
            if begin > behind:
                parts.append(self._encode(text[behind : begin - borders.gap]))
            parts.append(self._in_parts.encode_documents([text[begin:end]])[0])
            behind = end + borders.gap
        if behind < len(text):
            parts.append(self._encode(text[behind:]))
        return join(parts)[0]

    def decode(self, ids: Iterable[int]) -> str:
        return self.exact.decode(ids)

    def _renew(self) -> None:
        """A new engine: the old one's cache, which grows without end, goes back to the system."""
        del self._encode
        give_back()
        self._encode, self._characters = self._build(), 0

    def _audit(self, texts: Sequence[str], ids: Sequence[Any]) -> None:
        chosen = self._chance.randrange(len(texts))
        text, found = texts[chosen], ids[chosen]
        size = min(len(text), _AUDIT_CHARACTERS)
        if self._audits and self._credit < size / _GUESSED_RATE:
            return
        start = time.perf_counter()
        if size < len(text):  # a part of it, which both encode as a text of its own
            first = self._chance.randrange(len(text) - size)
            text = text[first : first + size]
            found = self._ids(text)
        expected = self.exact.encode_documents([text])[0]
        self._credit -= time.perf_counter() - start
        self._audits += 1
        if not np.array_equal(found, expected):
            sample = text[:40]
            raise EngineError(f"gigatoken differs from the {self.kind} library on {sample!r}...")


def _engine(tokenizer: Tokenizer) -> Callable[[], Encode]:
    """What makes a new engine, as often as it is asked to."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("gigatoken")
    except PackageNotFoundError:
        raise _NoEngineError("for a faster one: pip install 'megarc[fast]'") from None
    if found not in VERSIONS:
        raise _NoEngineError(f"gigatoken {found} was not tried, only {', '.join(VERSIONS)}")
    try:
        from gigatoken import Tokenizer as Engine

        content, normalize = tokenizer.source or b"", None
        if tokenizer.kind == "sentencepiece":
            from megarc.corpus.tokenizer.sentencepiece import SentencePieceTokenizer

            assert isinstance(tokenizer, SentencePieceTokenizer)
            content, normalizes = _sentencepiece_json(content)
            normalize = tokenizer.normalize if normalizes else None
        # for the first that asks: to read the file again takes as long as 8 MB of text
        ready = [Engine.from_json(content)]
    except _NoEngineError:
        raise
    except Exception as error:  # it refuses what it cannot do in many ways
        raise _NoEngineError(f"gigatoken cannot be used: {error}") from None

    def build() -> Encode:
        engine = ready.pop() if ready else Engine.from_json(content)
        return _after(normalize, engine.backend.encode)

    return build


def _after(normalize: Callable[[str], str] | None, encode: Encode) -> Encode:
    return encode if normalize is None else lambda text: encode(normalize(text))


def _sentencepiece_json(model: bytes) -> tuple[bytes, bool]:
    """The model as gigatoken reads it, and whether SentencePiece has to normalise each text before.

    Control tokens are left out: a text that spells one out stays text. So are the steps
    that normalise (a prefix, NFKC, spaces made one): SentencePiece's own code does them,
    at a tenth of what its encoding costs, and gigatoken merges what comes out.
    """
    from gigatoken._load import sentencepiece as load

    # Asked for here because a whole model takes it much longer to be refused.
    trainer: Any = dict(load._fields(model)).get(load._MODEL_TRAINER_SPEC, b"")
    if load._scalars(trainer).get(load._TRAINER_MODEL_TYPE, _UNIGRAM) != _BPE:
        raise _NoEngineError("gigatoken cannot be used: a unigram model or other, not BPE")
    tree = orjson.loads(load.sentencepiece_to_tokenizer_json(model))
    normalizes = [step["type"] for step in tree["normalizer"]["normalizers"]] != ["Replace"]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    tree["normalizer"] = {"type": "Sequence", "normalizers": [spaces]}
    if not all(token["special"] for token in tree["added_tokens"]):
        raise _NoEngineError("the model has user-defined tokens")
    tree["added_tokens"] = []
    return orjson.dumps(tree), normalizes


def _compare(encode: Encode, tokenizer: Tokenizer) -> None:
    texts = hostile_texts(tokenizer)
    ids, lengths = tokenizer.encode_documents(texts)
    for text, expected in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        if not np.array_equal(np.asarray(encode(text), np.int32), expected):
            raise _NoEngineError(f"gigatoken differs from it on {text[:40]!r}")


def hostile_texts(tokenizer: Tokenizer, count: int = 300) -> list[str]:
    """Texts on which encoders tend to differ; the same every time."""
    chance = random.Random(0)
    ids = list(range(tokenizer.vocabulary_size))
    pieces = [tokenizer.decode([chance.choice(ids)]) for _ in range(1500)]
    odd = [
        *(
            "",
            " ",
            "  ",
            "\t",
            "\n",
            "\r\n",
            "\n\n\n",
            "\0",
            "\u00a0",
            "\u2028",
            "\u200b",
            "\ufeff",
            "\u2581",
        ),
        *(
            "é",
            "e\u0301",
            "ß",
            "ﬁ",
            "日本語",
            "ไทย",
            "عربى",
            "\U0001f468\u200d\U0001f469",
            "\U0010ffff",
            "\ud7ff",
        ),
        *("</s>", "<s>", "<unk>", "<pad>", "<0x41>", "<|endoftext|>", "<|im_start|>", *RESERVED),
        *("don't", "I'LL", "1234567", "3.14e-10", "0x1F", "__init__", "camelCase", "https://a.b/c?d=e#f"),
        *("=" * 70, "a" * 300, "ab" * 150, " " * 200, "\n" * 50, "é" * 100, "日" * 100),
    ]
    texts = list(odd)
    for _ in range(count):
        parts = [chance.choice(chance.choice((pieces, pieces, odd))) for _ in range(chance.randrange(1, 30))]
        texts.append(chance.choice(("", "", " ")).join(parts))
    for _ in range(100):
        codes = [chance.randrange(0x110000) for _ in range(20)]
        texts.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000))
    return texts
