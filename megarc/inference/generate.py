"""Sampling from a model, window by window.

A window begins with the newest tokens, the last of them on row n - f, where f
is ``refresh``: the stride unless given, so that tokens are drawn from rows that
bore loss. Up to r of them are R, the rest, one at least, begin C: with [R | C]
and s = c the last token starts C and the r before it are R. A shorter text has
a smaller R. Each new token is one more row of C, computed against the cached
keys and values. After f tokens the window moves: R is encoded again.

A window without R gains nothing by moving, so it does when it is full; a plain
causal one (s = n) would then forget everything, so it moves by half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.attention import Cache
from megarc.errors import UserError
from megarc.model import Transformer
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: logits are divided by it; 0: the likeliest token.
        top_k: only so many likeliest; 0: all.
        top_p: only the likeliest that together have this probability.
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

    def __post_init__(self) -> None:
        if self.refresh is not None and self.refresh < 1:
            raise UserError(f"refresh is {self.refresh}; it must be 1 or more")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"sampling wants temperature >= 0, top_k >= 0 and 0 < top_p <= 1; given {self.temperature}, "
                f"{self.top_k}, {self.top_p}"
            )


@torch.inference_mode()
def generate(
    model: Transformer,
    prompts: Tensor,
    window: Window,
    count: int,
    sampling: Sampling | None = None,
    *,
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """``prompts`` [batch, p] of token ids, continued by ``count`` tokens each: [batch, p + count].

    Where ``sampling.stop`` is given, a text that has reached it repeats it, and
    all end once each has.

    Args:
        progress: called with each new column [batch] of tokens.

    Raises:
        UserError: for an empty prompt, ids beyond the vocabulary, a refresh beyond the stride.
    """
    sampling = sampling or Sampling()
    _check(model, prompts, count)
    text = prompts.to(next(model.parameters()).device)
    generator = torch.Generator(device=text.device).manual_seed(sampling.seed)
    ended = torch.zeros(len(text), dtype=torch.bool, device=text.device)
    end = text.shape[1] + count
    while text.shape[1] < end and not bool(ended.all()):
        begun, room = opening(text.shape[1], window, sampling)
        last = begun + room - 1
        cache, logits = _encode(model, text[:, -begun:], window)
        for rows in range(begun, last + 1):
            drawn = _draw(logits, sampling, generator)
            if sampling.stop is not None:
                drawn = torch.where(ended, sampling.stop, drawn)
                ended |= drawn == sampling.stop
            text = torch.cat((text, drawn[:, None]), dim=1)
            if progress is not None:
                progress(drawn)
            if text.shape[1] == end or rows == last or bool(ended.all()):
                break
            logits = model.logits(text[:, -1:], slice(-1, None), 0, cache=cache)[:, 0]
    return text


def opening(length: int, window: Window, sampling: Sampling) -> tuple[int, int]:
    """With how many of its newest tokens a text of ``length`` begins a window, and how many that one can draw.

    Raises:
        UserError: for a refresh beyond the stride.
    """
    refresh = _refresh(sampling, window)
    begun = min(length, window.rows - refresh + 1)
    return begun, refresh if window.recent else window.rows - begun + 1


def _refresh(sampling: Sampling, window: Window) -> int:
    plain = window.stride == window.rows
    if sampling.refresh is None:
        return max(1, window.rows // 2) if plain else window.stride
    if sampling.refresh > window.stride:
        raise UserError(
            f"refresh is {sampling.refresh}, but a window {window} has only {window.stride} rows that learned to "
            "predict; it must be no more"
        )
    return sampling.refresh


def _encode(model: Transformer, text: Tensor, window: Window) -> tuple[Cache, Tensor]:
    """A cache that holds the window's beginning ``text``, and the logits [batch, ids] after it."""
    cache = model.empty_cache(len(text), window.rows)
    recent = min(window.recent, text.shape[1] - 1)
    return cache, model.logits(text, slice(-1, None), recent, cache=cache)[:, 0]


@torch.inference_mode()
def continuations(
    model: Transformer,
    beginning: Tensor,
    recent: int,
    uniforms: Tensor,
    sampling: Sampling,
    positions: Tensor | None = None,
    until: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Several continuations of each beginning, in the one window that it begins: it does not move.

    What is drawn depends on ``uniforms`` alone, so a batch may be cut anyhow, up to rounding.

    Args:
        beginning: [batch, p] of token ids, the first ``recent`` of them R.
        uniforms: [batch, K, m] float64 in [0, 1): token j of continuation k is where its number falls in
            the distribution function.
        positions: [batch, p] of the beginning's rows; those that follow count on from the last.
        until: tokens at which a continuation may end; once each has drawn one of them, m is cut short.

    Returns:
        Tokens [batch, K, m], and their log-probabilities [batch, K, m] under the model (temperature 1, all
        tokens), nats.
    """
    batch, count, length = uniforms.shape
    rows, device = beginning.shape[1], next(model.parameters()).device
    cache = model.empty_cache(batch, rows + length)
    logits = model.logits(beginning, slice(-1, None), recent, cache=cache, positions=positions)[:, 0]
    cache, logits = cache.repeated(count), logits.repeat_interleave(count, 0)
    last = None if positions is None else positions[:, -1:].repeat_interleave(count, 0)
    numbers = uniforms.reshape(batch * count, length).to(device)
    tokens, likely = [], []
    ends = torch.tensor(until, device=device)
    ended = torch.zeros(batch * count, dtype=torch.bool, device=device)
    for place in range(length):
        drawn = look_up(logits, sampling, numbers[:, place])
        tokens.append(drawn)
        likely.append(logits.float().log_softmax(-1).gather(-1, drawn[:, None])[:, 0])
        ended |= torch.isin(drawn, ends)
        if until and bool(ended.all()):
            break
        if place + 1 < length:
            at = None if last is None else last + place + 1
            logits = model.logits(drawn[:, None], slice(-1, None), 0, cache=cache, positions=at)[:, 0]
    shape = (batch, count, len(tokens))
    return torch.stack(tokens, 1).reshape(shape), torch.stack(likely, 1).reshape(shape)


def look_up(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Next tokens [batch] from ``logits`` [batch, ids] and numbers [batch] in [0, 1)."""
    if sampling.temperature == 0:
        return _allowed(logits, sampling).argmax(-1)
    upto = _allowed(logits, sampling).double().softmax(-1).cumsum(-1)
    total = upto[:, -1:]
    # Rounded up to the total, a number would fall behind the last token that may be drawn.
    wanted = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(upto, wanted, right=True)[:, 0]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Next tokens [batch] from ``logits`` [batch, ids]."""
    if sampling.temperature == 0:
        return _allowed(logits, sampling).argmax(-1)
    return torch.multinomial(_allowed(logits, sampling).softmax(-1), 1, generator=generator)[:, 0]


def _allowed(logits: Tensor, sampling: Sampling) -> Tensor:
    """``logits`` [batch, ids] over the temperature; -inf for what may not be drawn."""
    logits = logits.float() / (sampling.temperature or 1.0)
    if sampling.never:
        logits = logits.index_fill(-1, torch.tensor(sampling.never, device=logits.device), float("-inf"))
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, places = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        # What comes once the others have reached top_p goes; the likeliest always stays.
        ordered = ordered.masked_fill(before >= sampling.top_p, float("-inf"))
        logits = torch.empty_like(logits).scatter(-1, places, ordered)
    return logits


def _check(model: Transformer, prompts: Tensor, count: int) -> None:
    if prompts.dim() != 2 or prompts.shape[1] == 0:
        raise UserError("the prompt is empty; give at least one token")
    if count < 0:
        raise UserError(f"{count} tokens to generate; it must be 0 or more")
    largest = int(prompts.max())
    if largest >= model.config.tokens or int(prompts.min()) < 0:
        raise UserError(
            f"the prompt has token {largest}, but the model knows {model.config.tokens}; "
            "use the tokenizer that it was trained with"
        )
