"""Transcripts as ids: ``<code>`` ``python`` line end ... ``</code>`` ``<output>`` ... ``</output>``.

Code begins with the name of its language, so that one pair of reserved tokens serves any number of languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megarc.corpus.tokenizer import RESERVED, Tokenizer, join
from megarc.corpus.transcript.markup import Kind, Segment, parse_marked
from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids of the four reserved tokens."""

    code: int
    end_of_code: int
    output: int
    end_of_output: int

    @classmethod
    def of(cls, reserved: Mapping[str, int] | None, place: str) -> Marks:
        """
        Raises:
            UserError: where the tokenizer has not all of them.
        """
        names = ("<code>", "</code>", "<output>", "</output>")
        missing = [name for name in names if name not in (reserved or {})]
        if missing:
            raise UserError(
                f"{place}: its tokenizer reserves no {', '.join(missing)}, which transcripts need; "
                "train one with data_tools/train_tokenizer.py, or take: bytes"
            )
        assert reserved is not None
        return cls(*(reserved[name] for name in names))


class TranscriptTokenizer(Tokenizer):
    """``tokenizer``, for marked texts: marks become reserved tokens, what lies between them is encoded by itself.

    Its digest is the tokenizer's: the same ids mean the same.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._plain = tokenizer
        self._marks = Marks.of(tokenizer.reserved, f"the {tokenizer.kind} tokenizer")
        self.kind, self.digest, self.source = tokenizer.kind, tokenizer.digest, tokenizer.source
        self.vocabulary_size, self.reserved = tokenizer.vocabulary_size, tokenizer.reserved
        self.end = tokenizer.end

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """
        Raises:
            Unbalanced: where the marks of a text do not fit together.
        """
        documents = [parse_marked(text) for text in texts]
        contents = [
            f"{segment.language}\n{segment.text}" if segment.kind == "code" else segment.text
            for segments in documents
            for segment in segments
        ]
        ids = iter(plain_ids(self._plain, contents))
        opening = {"code": [self._marks.code], "output": [self._marks.output], "text": []}
        closing = {"code": [self._marks.end_of_code], "output": [self._marks.end_of_output], "text": []}
        return join([
            np.concatenate([
                np.empty(0, np.int32),
                *(
                    np.concatenate([opening[one.kind], next(ids), closing[one.kind]]).astype(np.int32)
                    for one in segments
                ),
            ])
            for segments in documents
        ])  # fmt: skip

    def decode(self, ids: Iterable[int]) -> str:
        return self._plain.decode(ids)


def plain_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Any]:
    """The ids of each text, i32 ``[tokens]``, none of them reserved, whatever the text says.

    Some libraries turn a reserved token's name, written out, into that token. Such a name is encoded in two halves.
    """
    ids, lengths = tokenizer.encode_documents(texts)
    parts = np.split(ids, np.cumsum(lengths)[:-1]) if len(texts) else []
    reserved = np.fromiter(tokenizer.reserved.values(), np.int32, len(tokenizer.reserved))
    if np.isin(ids, reserved).any():
        halves = re.compile("|".join(f"(?<=<)(?={re.escape(name[1:])})" for name in RESERVED))
        for number, part in enumerate(parts):
            if np.isin(part, reserved).any():
                parts[number] = tokenizer.encode_documents(halves.split(texts[number]))[0]
    return parts


def read_ids(ids: Iterable[int], tokenizer: Tokenizer) -> list[Segment]:
    """The segments of ids, a model's for instance: what is not closed ends with the ids, a stray mark is left out."""
    marks = Marks.of(tokenizer.reserved, "the transcript")
    kinds: dict[int, Kind] = {marks.code: "code", marks.output: "output"}
    ends = (marks.end_of_code, marks.end_of_output)
    parts: list[tuple[Kind, list[int]]] = [("text", [])]
    for number in map(int, ids):
        if number in kinds:
            parts.append((kinds[number], []))
        elif number in ends:
            parts.append(("text", []))
        else:
            parts[-1][1].append(number)
    segments = []
    for kind, inside in parts:
        text = tokenizer.decode(inside)
        if kind == "code":
            language, _, source = text.partition("\n")
            segments.append(Segment(kind, source, language))
        elif inside or kind == "output":
            segments.append(Segment(kind, text))
    return segments
