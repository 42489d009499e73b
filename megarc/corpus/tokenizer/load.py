"""The door: a file's tokenizer, whichever library it belongs to. Only that library is imported."""

from __future__ import annotations

from pathlib import Path

from megarc.corpus.tokenizer.base import Tokenizer
from megarc.errors import UserError


def load_tokenizer(path: str | Path, eod_token: str | None = None) -> Tokenizer:
    """The tokenizer of a SentencePiece ``.model``, a Hugging Face ``tokenizer.json``, or the word ``bytes``.

    Args:
        path: a file, or the folder that holds it.
        eod_token: the token that ends a document, or its id; None: as the files say.

    Raises:
        UserError: where there is no such file, it is no tokenizer, or it has no such token.
    """
    if str(path) == "bytes":
        from megarc.corpus.tokenizer.raw_bytes import BytesTokenizer

        return BytesTokenizer(eod_token)
    path = Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model")
        path = next((path / name for name in names if (path / name).exists()), path / names[0])
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"no such tokenizer: {path}; give a file that is here (names of a hub are not fetched), or train one "
            "with data_tools/train_tokenizer.py"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror}") from None
    if content.lstrip()[:1] == b"{":
        from megarc.corpus.tokenizer.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(content, path, eod_token)
    from megarc.corpus.tokenizer.sentencepiece import SentencePieceTokenizer

    return SentencePieceTokenizer(content, path, eod_token)
