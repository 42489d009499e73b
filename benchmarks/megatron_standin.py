"""Stands in for Megatron-LM's preprocessing where no checkout of it is at hand.

Its pipeline as its sources describe it, with the libraries that it calls:

    slow    preprocess_data.py: a pool of workers, one document a task (chunks of 32), json, the stock
            encoder's list of ids sent back, a builder that makes an array of each document and writes it
    fast    preprocess_data_fast.py: the file in memory, gigatoken on all of its documents, the same builder

It is a stand-in: it leaves out what the originals do beside that (arguments, logging, checks). Where megatron-core
can be imported (for Hugging Face's tokenizers with transformers), the tokenizer and the builder are its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from options import options

MEGATRON = importlib.util.find_spec("megatron") is not None
TRANSFORMERS = importlib.util.find_spec("transformers") is not None
ENCODER: Any = None  # of a pool's process, as in the original


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output-prefix", required=True)
    parser.add_argument("--tokenizer-model", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    documents = fast(arguments) if arguments.fast else slow(arguments)
    (build_with_megatron if MEGATRON else build)(Path(arguments.output_prefix), documents)


def slow(arguments: argparse.Namespace) -> Iterator[list[int]]:
    with (
        Path(arguments.input).open(encoding="utf-8") as lines,
        multiprocessing.Pool(arguments.workers, start_encoder, [arguments.tokenizer_model]) as pool,
    ):
        for ids, _, _ in pool.imap(encode_line, lines, 32):
            yield ids["text"]


def start_encoder(path: str) -> None:
    global ENCODER
    if path.endswith(".json") and MEGATRON and TRANSFORMERS:
        wrapped = wrapped_by_megatron(path)
        ENCODER = wrapped.text_to_ids, wrapped.tokenizer.eos_token_id
    elif path.endswith(".json"):
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(path)
        end = tokenizer.token_to_id("<|endoftext|>")
        ENCODER = (lambda text: tokenizer.encode(text).ids), end
    elif MEGATRON:
        from megatron.core.tokenizers.text.libraries.sentencepiece_tokenizer import SentencePieceTokenizer

        wrapped = SentencePieceTokenizer(path)
        ENCODER = wrapped.text_to_ids, wrapped.tokenizer.eos_id()
    else:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=path)
        ENCODER = processor.encode_as_ids, processor.eos_id()


def wrapped_by_megatron(path: str) -> Any:
    """Megatron-core's tokenizer over transformers', which wants a folder."""
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer

    folder = Path(tempfile.mkdtemp())
    (folder / "tokenizer.json").write_bytes(Path(path).read_bytes())
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return HuggingFaceTokenizer(str(folder))


def encode_line(line: str) -> tuple[dict[str, list[int]], dict[str, list[int]], int]:
    encode, end = ENCODER
    ids = list(encode(json.loads(line)["text"]))
    lengths = [len(ids)] if ids else []
    if ids:
        ids.append(end)
        lengths[-1] += 1
    return {"text": ids}, {"text": lengths}, len(line)


def fast(arguments: argparse.Namespace) -> Iterator[list[int]]:
    import gigatoken
    import tokenizers

    end = tokenizers.Tokenizer.from_file(arguments.tokenizer_model).token_to_id("<|endoftext|>")
    lines = Path(arguments.input).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    tokenizer = gigatoken.Tokenizer(arguments.tokenizer_model)
    for ids in tokenizer.encode_batch_list(texts, parallel=arguments.workers > 1):
        if ids:
            ids.append(end)
        yield ids


def build_with_megatron(prefix: Path, documents: Iterable[list[int]]) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for ids in documents:
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(f"{prefix}.idx")


def build(prefix: Path, documents: Iterable[list[int]]) -> None:
    lengths: list[int] = []
    count = 0
    with Path(f"{prefix}.bin").open("wb") as file:
        for ids in documents:
            count += 1
            file.write(np.array(ids, np.uint16).tobytes(order="C"))
            if ids:
                lengths.append(len(ids))
    sizes = np.array(lengths, np.int32)
    pointers = np.concatenate([[0], np.cumsum(sizes[:-1], dtype=np.int64) * 2]) if lengths else np.empty(0)
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1))
        file.write(sizes.tobytes() + pointers.astype(np.int64).tobytes())
        file.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())


if __name__ == "__main__":
    main()
