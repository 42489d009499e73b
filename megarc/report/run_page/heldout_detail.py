"""A run's held-out loss by place in the window and by how frequent the token is, and a sample of its writing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from megarc.corpus import IndexedCorpus, load_tokenizer
from megarc.errors import UserError
from megarc.inference import Sampling, generate, window_losses
from megarc.train import SavedModel, find_tokenizer, load_model, padding_ids

_COUNTED = 20_000_000  # training tokens whose frequencies are counted, of each corpus
_FEWEST = 20  # targets of a bin
_PROMPT = 24  # tokens

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class HeldOutDetail:
    """Mean nats of held-out targets.

    Attributes:
        corpus: where they lie.
        targets: how many.
        by_row: at each loss row of the window, counted from the window's first row.
        by_frequency: by the share of training tokens that are the target's token, two bins a decade.
        prompt, continuation: the corpus' first tokens, and what the model adds at temperature 1; None without a
            tokenizer at hand.
    """

    corpus: Path
    targets: int
    by_row: Points
    by_frequency: Points
    prompt: str | None
    continuation: str | None


def heldout_detail(run: Path, targets: int, written: int) -> HeldOutDetail:
    """Of the run's newest checkpoint on its first held-out corpus.

    Args:
        targets: to score at most.
        written: tokens of the sample; 0: none.

    Raises:
        UserError: where there is no checkpoint, or no held-out corpus of running text.
    """
    saved = load_model(run)
    corpus = _heldout(saved)
    window = saved.config.window.build()
    first, last = window.first_target, min(len(corpus.tokens), window.first_target + targets)
    documents = corpus.documents_of if saved.config.data.isolates else None
    losses = window_losses(saved.model, corpus.tokens, window, range(first, last), documents=documents)
    rows: npt.NDArray[np.int64] = window.rows - window.stride + 1 + np.arange(window.stride)
    counts = (~np.isnan(losses)).sum(axis=0)
    by_row = [
        (float(row), float(np.nanmean(losses[:, at]))) for at, row in enumerate(rows) if counts[at] >= 1
    ]
    scored = np.asarray(corpus.tokens[first:last]).astype(np.int64)
    shares = frequencies(saved)[scored]
    prompt, continuation = _sample(saved, corpus, written) if written else (None, None)
    return HeldOutDetail(
        corpus.prefix,
        last - first,
        by_row,
        by_bins(shares, losses.ravel()[: len(scored)]),
        prompt,
        continuation,
    )


def frequencies(saved: SavedModel) -> npt.NDArray[np.float64]:
    """The share of each id [vocabulary] in the training corpora."""
    counts: npt.NDArray[np.int64] = np.zeros(saved.config.model.tokens, np.int64)
    for source in saved.config.data.train:
        if source.kind == "corpus" and source.path is not None:
            some = np.asarray(IndexedCorpus(source.path).tokens[:_COUNTED])
            counts += np.bincount(some, minlength=len(counts))[: len(counts)]
    return counts / max(1, counts.sum())


def by_bins(shares: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]) -> Points:
    """Mean loss of targets [n] by the share of their token, two bins a decade; bins of few targets are left out."""
    known = shares > 0
    bins = np.floor(2 * np.log10(shares[known])).astype(int)
    found = []
    for number in np.unique(bins):
        inside = losses[known][bins == number]
        if len(inside) >= _FEWEST:
            found.append((float(10 ** ((number + 0.5) / 2)), float(inside.mean())))
    return found


def _heldout(saved: SavedModel) -> IndexedCorpus:
    for source in saved.config.data.valid:
        if source.kind == "corpus" and source.path is not None and not saved.config.data.packs:
            return IndexedCorpus(source.path)
    raise UserError("it has no held-out corpus of running text (data.valid)")


def _sample(saved: SavedModel, corpus: IndexedCorpus, written: int) -> tuple[str | None, str | None]:
    try:
        tokenizer = load_tokenizer(find_tokenizer(saved))
    except UserError:
        return None, None
    prompt = np.asarray(corpus.tokens[:_PROMPT]).astype(np.int64)
    sampling = Sampling(seed=0, never=padding_ids(saved, tokenizer))
    with torch.inference_mode():
        ids = generate(
            saved.model, torch.as_tensor(prompt)[None], saved.config.window.build(), written, sampling
        )
    return tokenizer.decode(prompt.tolist()), tokenizer.decode(ids[0, len(prompt) :].tolist())
