"""Trains a SentencePiece tokenizer whose decoding gives back the text exactly, code included."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from megarc.atomic_write import written_atomically
from megarc.corpus.tokenizer import RESERVED, Tokenizer, load_tokenizer
from megarc.errors import UserError

_SENTENCE_BYTES = 1000
_THREADS = 4  # fixed: the model depends on their number, so it must not follow the machine's


def train_tokenizer(
    texts: Iterable[str],
    prefix: str | Path,
    vocabulary_size: int,
    *,
    algorithm: str = "bpe",
    reserved: Iterable[str] = RESERVED,
) -> Tokenizer:
    """Trains on ``texts`` and writes ``PREFIX.model``; the same texts in the same order give the same bytes.

    Nothing is normalised, spaces are kept, a character without a piece becomes its
    bytes. Ids: 0 ``<unk>``, 1 ``</s>`` (end of document), then ``reserved``, then 256
    bytes, then what was learnt. U+2581, SentencePiece's own sign for a space, is the
    one character that doesn't come back.

    Args:
        algorithm: ``bpe`` or ``unigram``.

    Raises:
        UserError: for an empty sample, or a vocabulary that it cannot fill.
    """
    kept = tuple(reserved)
    smallest = 2 + len(kept) + 256 + 1
    if vocabulary_size < smallest:
        raise UserError(
            f"a vocabulary of {vocabulary_size} is too small: bytes and reserved tokens alone take "
            f"{smallest - 1}"
        )
    model = io.BytesIO()
    sentences = _Counted(_sentences(texts))
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=algorithm,
            vocab_size=vocabulary_size,
            control_symbols=list(kept),
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            character_coverage=0.9999,
            max_sentence_length=1 << 20,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if not sentences.count:
            raise UserError("there is no text to train a tokenizer on: the inputs are empty") from None
        raise UserError(
            f"a vocabulary of {vocabulary_size} cannot be made from this text; take another size, or more "
            f"text (SentencePiece says: {str(error).split('] ')[-1].strip()})"
        ) from None
    path = Path(f"{prefix}.model")
    with written_atomically(path) as file:
        file.write(model.getvalue())
    return load_tokenizer(path)


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Texts in pieces of about 1000 bytes, cut at line ends, which they keep.

    SentencePiece leaves out a whole sentence for one tab or U+2585, which it uses itself.
    """
    for text in texts:
        lines: list[str] = []
        size = 0
        for line in text.replace("\t", " ").replace("\u2585", " ").splitlines(keepends=True):
            if lines and size + len(line) > _SENTENCE_BYTES:
                yield "".join(lines)
                lines, size = [], 0
            for first in range(0, len(line), _SENTENCE_BYTES):
                lines.append(line[first : first + _SENTENCE_BYTES])
                size += len(lines[-1])
                if size >= _SENTENCE_BYTES:
                    yield "".join(lines)
                    lines, size = [], 0
        if lines:
            yield "".join(lines)


class _Counted:
    """An iterable that knows how much was taken from it."""

    def __init__(self, items: Iterable[str]) -> None:
        self.items = items
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for item in self.items:
            self.count += 1
            yield item
