"""What Hugging Face's AutoTokenizer must know of a tokenizer beside its file."""

from __future__ import annotations

from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.corpus.tokenizer.load import load_tokenizer

_CONFIG = "tokenizer_config.json"


def describe_tokenizer(file: Path, end: int | None, rows: int) -> None:
    """Writes tokenizer_config.json beside ``file``, where there is none yet.

    The class is the one that takes a file as it is: LlamaTokenizer gives other ids for SentencePiece's unigrams.
    No token is put before a text, as none is when corpora are packed.

    Args:
        end: the token that ends a document; None: as the file says.
        rows: of a window.
    """
    path = file.with_name(_CONFIG)
    if path.exists():
        return
    tokenizer = load_tokenizer(file, None if end is None else str(end))
    token = None if tokenizer.end is None else tokenizer.end.token
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": token,
        "pad_token": token,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": rows,
    }
    with written_atomically(path) as out:
        out.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
