"""SentencePiece models, BPE or unigram."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from megarc.corpus.tokenizer.base import Tokenizer, join
from megarc.corpus.tokenizer.end_of_document import chosen, named_beside
from megarc.errors import UserError


class SentencePieceTokenizer(Tokenizer):
    """A ``.model`` file. A control token written out in a text stays text."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, path: Path, eod_token: str | None = None) -> None:
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = bool(model) and self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            loaded = False
        if not loaded:
            raise UserError(f"{path} is not a tokenizer: neither a SentencePiece model nor a tokenizer.json")
        self.source = model
        self.digest = hashlib.sha256(model).hexdigest()
        self.vocabulary_size = self._processor.vocab_size()
        end = self._processor.eos_id()
        usual = {end, self._processor.bos_id(), self._processor.pad_id(), self._processor.unk_id()}
        ids = {self._processor.id_to_piece(number): number for number in range(self.vocabulary_size)}
        control = {piece: number for piece, number in ids.items() if self._processor.is_control(number)}
        self.end = chosen(eod_token, named_beside(path), end if end >= 0 else None, ids, control)
        if self.end:
            usual.add(self.end.id)
        self.reserved = {piece: number for piece, number in control.items() if number not in usual}

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        # One thread: the workers are processes, and more threads showed no gain.
        return join(self._processor.encode(list(texts), out_type="numpy", num_threads=1))

    def normalize(self, text: str) -> str:
        """What the model makes of ``text`` before it looks for pieces, with ``\u2581`` for a space."""
        return str(self._processor.normalize(text))

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._processor.decode([int(number) for number in ids]))
