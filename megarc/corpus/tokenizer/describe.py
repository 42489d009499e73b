"""What Hugging Face's AutoTokenizer and ``generate`` must know of a tokenizer beside its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.corpus.tokenizer.load import load_tokenizer
from megarc.errors import UserError

_CONFIG, _GENERATION = "tokenizer_config.json", "generation_config.json"


def describe_tokenizer(file: Path, end: int | None, rows: int, ids: int | None = None) -> None:
    """Writes tokenizer_config.json beside ``file``, where there is none yet.

    The class is the one that takes a file as it is: LlamaTokenizer gives other ids for SentencePiece's unigrams.
    No token is put before a text, as none is when corpora are packed. Where the model has more ids than the tokenizer
    tokens, generation_config.json says that they are not drawn.

    Args:
        end: the token that ends a document; None: as the file says.
        rows: of a window.
        ids: that the model has; None: as many as there are tokens.
    """
    tokenizer = load_tokenizer(file, None if end is None else str(end))
    if not file.with_name(_CONFIG).exists():
        token = None if tokenizer.end is None else tokenizer.end.token
        facts = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": token,
            "pad_token": token,
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            "model_max_length": rows,
        }
        _write(file.with_name(_CONFIG), facts)
    if ids is not None and ids > tokenizer.vocabulary_size:
        _leave_out(file.with_name(_GENERATION), range(tokenizer.vocabulary_size, ids))


def _leave_out(path: Path, ids: range) -> None:
    """``suppress_tokens`` of transformers' ``generate``; other keys stay."""
    try:
        facts = orjson.loads(path.read_bytes()) if path.exists() else {}
        facts["suppress_tokens"] = sorted({*(facts.get("suppress_tokens") or ()), *ids})
    except (orjson.JSONDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no generation_config.json of transformers: {error}") from None
    _write(path, facts)


def _write(path: Path, facts: dict[str, Any]) -> None:
    with written_atomically(path) as out:
        out.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
