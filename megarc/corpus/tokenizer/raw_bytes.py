"""The tokenizer without a file: a token is a byte of UTF-8."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from megarc.corpus.tokenizer.base import RESERVED, Tokenizer, join
from megarc.corpus.tokenizer.end_of_document import chosen


class BytesTokenizer(Tokenizer):
    """Ids 0..255 are bytes, 256 ends a document, the reserved tokens follow."""

    kind = "bytes"

    def __init__(self, eod_token: str | None = None) -> None:
        ids = {"<end of document>": 256, **{name: 257 + number for number, name in enumerate(RESERVED)}}
        self.end = chosen(eod_token, None, 256, ids, {})
        self.reserved = {name: 257 + number for number, name in enumerate(RESERVED)}
        self.vocabulary_size = 257 + len(RESERVED)
        self.digest = hashlib.sha256(f"megarc bytes {self.vocabulary_size}".encode()).hexdigest()

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        return join([np.frombuffer(text.encode(), np.uint8) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(number for number in map(int, ids) if number < 256).decode(errors="replace")
