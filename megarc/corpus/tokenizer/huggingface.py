"""Hugging Face's ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from megarc.corpus.tokenizer.base import RESERVED, Tokenizer, join
from megarc.corpus.tokenizer.end_of_document import chosen, named_beside, special_tokens
from megarc.errors import UserError


class HuggingFaceTokenizer(Tokenizer):
    """A ``tokenizer.json``: as the library does, a special token written out in a text becomes that token.

    The template of special tokens around a text (``[CLS] ... [SEP]``) is not applied.
    """

    kind = "huggingface"

    def __init__(self, content: bytes, path: Path, eod_token: str | None = None) -> None:
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                f"{path} is a Hugging Face tokenizer, which needs: pip install 'megarc[tokenizers]'"
            ) from None
        # The workers are processes; threads of a forked pool would wait for ever.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"{path} is not a tokenizer that the tokenizers library can read: {error}"
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.source, self._path = content, path
        self.digest = hashlib.sha256(content).hexdigest()
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(ids.values()) + 1
        special = special_tokens(orjson.loads(content), ids)
        self.end = chosen(eod_token, named_beside(path), None, ids, special)
        self.reserved = {token: ids[token] for token in RESERVED if token in special}

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{self._path} cannot encode the text: {error}") from None
        return join([np.array(encoding.ids, np.int32) for encoding in encodings])

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode([int(number) for number in ids], skip_special_tokens=True))
