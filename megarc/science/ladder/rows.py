"""Rows of the ladder that need no trained model: uniform, n-grams, compressors."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError
from megarc.inference import Score
from megarc.inference.score import block_of, blocks
from megarc.science.ladder.compressors import Compressor, pieces
from megarc.science.ladder.kneser_ney import KneserNey, count_ngrams, work
from megarc.science.ladder.row import Row

Tokens: TypeAlias = npt.NDArray[Any]

_NAMES = {1: "unigram", 2: "bigram", 3: "trigram"}
_PATTERNS = {1: "how often each token occurs", 2: "the token before"}
_AT_ONCE = 1 << 20  # targets
_BYTES_ON_DISK = (
    48  # a token, for the highest order alone: its sorted runs and the table that they are merged into
)


def uniform(vocabulary: int, bytes_per_token: float | None) -> Row:
    """Every id of the vocabulary is equally likely."""
    return Row("uniform", "none", "uniform", math.log(vocabulary), None, bytes_per_token)


def ngram_name(order: int) -> str:
    """``unigram``, ``bigram``, ``trigram``, ``4-gram``, ..."""
    return _NAMES.get(order, f"{order}-gram")


def ngrams(
    corpus: Tokens,
    heldout: Tokens,
    targets: range,
    vocabulary: int,
    orders: Sequence[int],
    folder: Path,
    *,
    bytes_per_token: float | None = None,
    memory: int = 2**29,
    counting: Callable[[float], None] = lambda tokens: None,
    scoring: Callable[[int], None] = lambda targets: None,
) -> Iterator[Row]:
    """A row for each of ``orders``: interpolated modified Kneser-Ney counted on ``corpus`` [N].

    Args:
        heldout: [M]; ``targets`` are positions in it, from ``max(orders) - 1`` on at the earliest.
        folder: for the sorted tables, as ``count_ngrams`` says.
        counting: called with how many tokens more are counted, ``counting_work`` in all.
        scoring: called with how many targets more are scored, for each order anew.

    Raises:
        UserError: for a corpus that is too short, an id beyond the vocabulary, or a full disk.
    """
    for tokens, what in ((corpus, "the corpus"), (heldout, "the held-out text")):
        _check_ids(tokens, vocabulary, what)
    _check_disk(folder, len(corpus))
    try:
        model = count_ngrams(corpus, vocabulary, orders, folder, memory=memory, advance=counting)
    except OSError as error:
        raise UserError(
            f"the sorted n-grams cannot be written to {folder}: {error}; free space, or give --scratch"
        ) from None
    for order in orders:
        score = _scored(model, order, heldout, targets, bytes_per_token, scoring)
        pattern = _PATTERNS.get(order, f"the {order - 1} tokens before")
        spread = score.standard_error
        yield Row(
            ngram_name(order),
            pattern + _note(model, order),
            "ngram",
            score.nats_per_token,
            None if math.isnan(spread) else spread,
            bytes_per_token,
        )


counting_work = work


def compressed(
    found: Compressor, data: bytes, tokens: int, form: str, bytes_per_token: float | None, piece: int = 0
) -> Row:
    """A compressor's row on ``tokens`` targets written as ``data``.

    Args:
        form: in which form, for the row's name.
        piece: bytes that are compressed at a time, each by itself; 0: all together.
    """
    size = sum(map(found.size, pieces(data, piece))) if piece else found.size(data)
    nats = 8 * size / tokens * math.log(2)
    pattern = "repeats" if not piece else "repeats within a piece"
    return Row(f"{found.name}, {form}", pattern, "compressor", nats, None, bytes_per_token)


def _scored(
    model: KneserNey,
    order: int,
    heldout: Tokens,
    targets: range,
    bytes_per_token: float | None,
    advance: Callable[[int], None],
) -> Score:
    """The cross-entropy of the targets, as ``megarc.inference.evaluate`` gives it for a model."""
    sums = np.zeros(blocks(targets))
    for first in range(targets.start, targets.stop, _AT_ONCE):
        stop = min(first + _AT_ONCE, targets.stop)
        columns = [np.asarray(heldout[first - back : stop - back]) for back in range(order - 1, -1, -1)]
        nll = -np.log(model.probabilities(order, columns))
        np.add.at(sums, block_of(np.arange(first, stop), targets), nll)
        advance(stop - first)
    return Score(targets, tuple(sums.tolist()), bytes_per_token)


def _note(model: KneserNey, order: int) -> str:
    """Which discounts had to be replaced, for the row's pattern."""
    levels = [model.raw[order], *(model.below[size] for size in range(1, order))]
    replaced = any(level.discounts.replaced for level in levels)
    return " (fixed discounts where counts of counts gave none)" if replaced else ""


def _check_ids(tokens: Tokens, vocabulary: int, what: str) -> None:
    for first in range(0, len(tokens), _AT_ONCE):
        some = np.asarray(tokens[first : first + _AT_ONCE])
        if some.min() < 0 or some.max() >= vocabulary:
            at = first + int(np.argmax((some < 0) | (some >= vocabulary)))
            raise UserError(
                f"{what}'s token {at} is {tokens[at]}, but the vocabulary has {vocabulary} ids: "
                "pack both with one tokenizer"
            )


def _check_disk(folder: Path, tokens: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < _BYTES_ON_DISK * tokens:
        raise UserError(
            f"counting {tokens} tokens takes {_BYTES_ON_DISK * tokens / 1e9:.1f} GB of disk and more, and {folder} "
            f"has {free / 1e9:.1f} GB free; give --scratch FOLDER on another disk"
        )
