"""How the next token is drawn from logits: rules that bend the distribution, and a number that picks from it.

A token is looked up, not drawn from a generator's state: it is where a number in [0, 1) falls in the distribution
function. So a text depends on its own numbers alone, not on which texts are written beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from megarc.errors import UserError

_LEAST = 1e-6  # logits divided by less may be infinite
_BLOCK = 64  # tokens whose probabilities are summed before the search


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. The rules apply in this order; a temperature of 0 takes the likeliest token.

    Attributes:
        repetition: logits of tokens that the text already has are divided by it where they are positive,
            multiplied where negative (Keskar et al. 2019, 1909.05858); 1: no penalty.
        temperature: logits are divided by it.
        top_k: only so many likeliest; 0: all.
        top_p: only the likeliest that together have this probability (Holtzman et al. 2019, 1904.09751).
        min_p: only those that have this share of the likeliest one's probability (Nguyen et al. 2024,
            2407.01082); 0: all.
        refresh: tokens after which the window moves, at most s; fewer: more context, more work.
        stop: a token that ends the text, end-of-document for instance.
        never: tokens that are not drawn.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    refresh: int | None = None
    stop: int | None = None
    never: tuple[int, ...] = ()
    min_p: float = 0.0
    repetition: float = 1.0

    def __post_init__(self) -> None:
        if self.refresh is not None and self.refresh < 1:
            raise UserError(f"refresh is {self.refresh}; it must be 1 or more")
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"sampling wants temperature >= 0, top_k >= 0 and 0 < top_p <= 1; given {self.temperature}, "
                f"{self.top_k}, {self.top_p}"
            )
        if 0 < self.temperature < _LEAST:
            raise UserError(
                f"a temperature of {self.temperature} is below {_LEAST}; 0 takes the likeliest token"
            )
        if not 0 <= self.min_p <= 1 or not _LEAST <= self.repetition <= 1 / _LEAST:
            raise UserError(
                f"sampling wants 0 <= min_p <= 1 and a repetition penalty of {_LEAST} to {1 / _LEAST:g}; given "
                f"{self.min_p}, {self.repetition}"
            )


def look_up(logits: Tensor, sampling: Sampling, uniform: Tensor, seen: Tensor | None = None) -> Tensor:
    """Next tokens [batch] from ``logits`` [batch, ids] and numbers [batch] in [0, 1).

    Args:
        seen: [batch, ids], bool: tokens that the text has; needed where ``sampling.repetition`` is not 1.
    """
    return draw(logits, sampling, uniform, seen, likely=False)[0]


def draw(
    logits: Tensor, sampling: Sampling, uniform: Tensor, seen: Tensor | None = None, likely: bool = True
) -> tuple[Tensor, Tensor]:
    """As ``look_up``; and the drawn tokens' log-probabilities [batch] in nats, under ``logits`` as they are.

    Without ``likely`` these are not computed: zeros.
    """
    logits = logits.float()
    bent = _bent(logits, sampling, seen)
    if sampling.temperature == 0:
        tokens = without(bent, sampling.never).argmax(-1)
        return tokens, _log_probability(logits, tokens) if likely else torch.zeros_like(uniform).float()
    weights = without(bent, sampling.never) if sampling.never else bent.clone()
    top = weights.amax(-1, keepdim=True)
    weights = weights.sub_(top).exp_()  # [batch, ids], in proportion to the probabilities
    total = top[:, 0] + weights.sum(-1).log()
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p:
        weights = _likeliest(weights, sampling)
    tokens = _at(weights, uniform)
    if not likely:
        return tokens, torch.zeros_like(uniform).float()
    if bent is not logits:
        return tokens, _log_probability(logits, tokens)
    if sampling.never:
        total = total.logaddexp(logits[:, list(sampling.never)].logsumexp(-1))
    return tokens, logits.gather(-1, tokens[:, None])[:, 0] - total


def _bent(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    """Logits after repetition penalty and temperature; ``logits`` itself where neither changes anything."""
    bent = logits
    if sampling.repetition != 1 and seen is not None:
        penalised = torch.where(bent > 0, bent / sampling.repetition, bent * sampling.repetition)
        bent = torch.where(seen, penalised, bent)
    if sampling.temperature not in (0, 1):
        bent = bent / sampling.temperature
    return bent


def without(logits: Tensor, never: tuple[int, ...]) -> Tensor:
    """``logits`` [batch, ids] with -inf for the ids ``never``."""
    if not never:
        return logits
    return logits.index_fill(-1, torch.tensor(never, device=logits.device), float("-inf"))


def _likeliest(weights: Tensor, sampling: Sampling) -> Tensor:
    """``weights`` [batch, ids] with 0 for what top_k, top_p and min_p leave out; the likeliest always stays."""
    if 0 < sampling.top_k < weights.shape[-1]:
        least = weights.topk(sampling.top_k).values[:, -1:]
        weights = weights.masked_fill(weights < least, 0.0)
    if sampling.top_p < 1:
        ordered, places = weights.sort(descending=True)
        share = ordered.double() / ordered.double().sum(-1, keepdim=True)
        before = share.cumsum(-1) - share
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        weights = torch.empty_like(weights).scatter(-1, places, ordered)
    if sampling.min_p:
        weights = weights.masked_fill(weights < sampling.min_p * weights.amax(-1, keepdim=True), 0.0)
    return weights


def _at(weights: Tensor, uniform: Tensor) -> Tensor:
    """Where the numbers [batch] fall in the distribution function of ``weights`` [batch, ids].

    First among sums of 64 tokens, then among the 64: a sum over all ids in float64 costs more than the rest.
    """
    blocks = functional.pad(weights, (0, -weights.shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    upto = blocks.sum(-1).double().cumsum(-1)  # [batch, blocks]
    wanted = uniform[:, None].double() * upto[:, -1:]
    block = _first_above(upto, wanted)
    inside = blocks.gather(1, block[..., None].expand(-1, 1, _BLOCK))[:, 0].double().cumsum(-1)
    begun = torch.where(block > 0, upto.gather(1, (block - 1).clamp(min=0)), 0.0)
    return (block * _BLOCK + _first_above(inside, wanted - begun))[:, 0]


def _first_above(upto: Tensor, wanted: Tensor) -> Tensor:
    """The first column of ``upto`` [batch, columns] above ``wanted`` [batch, 1]: [batch, 1].

    Rounded up to the total, a number would fall behind the last column that has a weight.
    """
    total = upto[:, -1:]
    return torch.searchsorted(
        upto, torch.minimum(wanted, torch.nextafter(total, torch.zeros_like(total))), right=True
    )


def _log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
