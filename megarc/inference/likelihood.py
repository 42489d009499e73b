"""How likely continuations are: many at once, each by the windows in which a model would write it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megarc.attention import on_device
from megarc.data import Pair, Part, parts
from megarc.inference.decoder import windows_apart
from megarc.inference.generate import check_prompt
from megarc.inference.sampling import without
from megarc.model import Transformer
from megarc.window import Window

_ROWS = 2048  # that go through the model in one pass


class Likelihood(NamedTuple):
    """Log-likelihood of a continuation in nats, and whether greedy drawing gives it."""

    nats: float
    greedy: bool


@torch.inference_mode()
def likelihoods(
    model: Transformer,
    pairs: Sequence[Pair],
    window: Window,
    *,
    causal: bool = False,
    never: tuple[int, ...] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Of each pair's continuation: the context is R, the continuation C.

    Args:
        causal: under a causal mask instead; the same tokens are seen.
        never: ids that greedy drawing leaves out, as ``Sampling.never``; they keep their part of the probability.
        progress: called with how many predicted tokens more are done.

    Raises:
        UserError: for an empty context, ids beyond the vocabulary.
    """
    for pair in pairs:
        check_prompt(pair.context, model.config.tokens)
        if pair.continuation:
            check_prompt(pair.continuation, model.config.tokens)
    work = [(number, part) for number, pair in enumerate(pairs) for part in parts(pair, window, causal)]
    work.sort(key=lambda one: len(one[1].ids))
    nats: list[list[float]] = [[] for _ in pairs]
    greedy = [True] * len(pairs)
    for some in _passes(work):
        for (number, part), (value, best) in zip(
            some, _score(model, [part for _, part in some], never), strict=True
        ):
            nats[number].append(value)
            greedy[number] &= best
            if progress is not None:
                progress(part.scored)
    return [Likelihood(math.fsum(values), best) for values, best in zip(nats, greedy, strict=True)]


def _passes(work: Sequence[tuple[int, Part]]) -> Iterator[list[tuple[int, Part]]]:
    some: list[tuple[int, Part]] = []
    rows = 0
    for one in work:
        length = len(one[1].ids) - 1
        if some and rows + length > _ROWS:
            yield some
            some, rows = [], 0
        some.append(one)
        rows += length
    if some:
        yield some


def _score(model: Transformer, some: Sequence[Part], never: tuple[int, ...]) -> list[tuple[float, bool]]:
    """Nats and greediness of each part, all of them end to end in one row."""
    lengths = [len(part.ids) - 1 for part in some]
    device = model.embedding.weight.device

    def row(values: list[int]) -> Tensor:
        return torch.tensor(values, device=device)

    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    scored = [place for part, end in zip(some, ends, strict=True) for place in range(end - part.scored, end)]
    seen = windows_apart(lengths, [part.recent for part in some])
    logits = model.logits(
        row([one for part in some for one in part.ids[:-1]])[None],
        row(scored),
        on_device(seen, device),
        positions=row([place for length in lengths for place in range(length)])[None],
    )
    logits = model.tensor.gather_last(logits).double()
    targets = row([one for part in some for one in part.ids[-part.scored :]])
    likely = logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)
    best = without(logits, never).argmax(-1) == targets
    counts = [part.scored for part in some]
    return [
        (float(one.sum()), bool(hit.all()))
        for one, hit in zip(likely.split(counts), best.split(counts), strict=True)
    ]
