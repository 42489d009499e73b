"""The door: a file's tokenizer, whichever library it belongs to. Only that library is imported."""

from __future__ import annotations

from pathlib import Path

from megarc.corpus.tokenizer.base import Tokenizer
from megarc.errors import UserError


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a SentencePiece ``.model``, a Hugging Face ``tokenizer.json``, or the word ``bytes``.

    Raises:
        UserError: where there is no such file, or it is no tokenizer.
    """
    if str(path) == "bytes":
        from megarc.corpus.tokenizer.raw_bytes import BytesTokenizer

        return BytesTokenizer()
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such tokenizer: {path}; train one with data_tools/train_tokenizer.py") from None
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror}") from None
    if content.lstrip()[:1] == b"{":
        from megarc.corpus.tokenizer.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(content, str(path))
    from megarc.corpus.tokenizer.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer(content, str(path))
