"""Writing texts: many of them by the loop, or several continuations of each beginning in one window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from megarc.attention import Branches, Cache
from megarc.data.counter_random import key_of, words
from megarc.errors import UserError
from megarc.inference.decoder import ROWS, Decoder
from megarc.inference.loop import Loop
from megarc.inference.sampling import Sampling, draw
from megarc.model import Transformer
from megarc.window import Window

SLOTS = 64  # texts at once: on a CPU, more gain little
_BRANCHES = 8  # continuations of a beginning that are written together: their scores grow with its square


@dataclass(slots=True)
class Writing:
    """One text: its prompt and what a model adds.

    What is drawn depends on the prompt, ``number`` and the seed, not on the texts beside it.

    Attributes:
        prompt: ids, one at least.
        count: tokens to add at most.
        number: which of many texts it is: it decides the draws.
        ends: called with the new ids after each token; True ends the text.
        ids: prompt and new ids.
        likely: log-probability of each new token under the model (temperature 1, all tokens), nats.
    """

    prompt: Sequence[int]
    count: int
    number: int = 0
    seed: int = 0
    stop: int | None = None
    ends: Callable[[Sequence[int]], bool] | None = None
    ids: list[int] = field(init=False)
    likely: list[float] = field(init=False, default_factory=list)
    _uniforms: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.ids = list(self.prompt)

    @property
    def new(self) -> list[int]:
        """The ids that were added."""
        return self.ids[len(self.prompt) :]

    def uniform(self) -> float:
        drawn = len(self.likely)
        if drawn == len(self._uniforms):
            self._uniforms += uniforms(key_of("text", self.seed, self.number), drawn, 256)
        return self._uniforms[drawn]

    def take(self, token: int, likely: float) -> bool:
        self.ids.append(token)
        self.likely.append(likely)
        ended = token == self.stop or len(self.likely) >= self.count
        return not ended and not (self.ends is not None and self.ends(self.new))


def uniforms(key: int, first: int, count: int) -> list[float]:
    """Numbers ``first`` .. of the stream ``key``, each in [0, 1)."""
    word = words(key, np.arange(first, first + count)) >> np.uint64(11)
    found: list[float] = (word.astype(np.float64) * 2.0**-53).tolist()
    return found


def write(
    model: Transformer,
    texts: Iterable[Writing],
    window: Window,
    sampling: Sampling,
    *,
    slots: int = SLOTS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Writing]:
    """Continues ``texts``, which are read as slots become free; yields each when it has ended.

    On several tensor ranks, all call it with the same texts.

    Args:
        progress: called with how many tokens more there are.

    Raises:
        UserError: for an empty prompt, ids beyond the vocabulary, a refresh beyond the stride.
    """
    loop = Loop(Decoder(model, slots, window.rows), window, sampling, slots)
    source, before, written = iter(texts), 0, {}
    while True:
        while loop.room and (text := next(source, None)) is not None:
            check_prompt(text.prompt, model.config.tokens)
            if text.count < 1:
                yield text
                continue
            loop.add([text])
            written[id(text)] = text
        if not loop.busy:
            return
        left = loop.step()
        if progress is not None:
            now = sum(len(text.likely) for text in written.values())
            progress(now - before)
            before = now - sum(len(text.likely) for text in left if isinstance(text, Writing))
        for ended in left:
            yield written.pop(id(ended))


def generate(
    model: Transformer,
    prompts: Tensor,
    window: Window,
    count: int,
    sampling: Sampling | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """``prompts`` [batch, p] of token ids, continued by ``count`` tokens each: [batch, p + count].

    Where ``sampling.stop`` is given, a text that has reached it repeats it, up to the longest text's length.

    Args:
        progress: called with how many tokens more there are.

    Raises:
        UserError: for an empty prompt, ids beyond the vocabulary, a refresh beyond the stride.
    """
    sampling = sampling or Sampling()
    if count < 0:
        raise UserError(f"{count} tokens to generate; it must be 0 or more")
    texts = [
        Writing(prompt, count, number, sampling.seed, sampling.stop)
        for number, prompt in enumerate(prompts.tolist())
    ]
    for _ in write(model, texts, window, sampling, slots=min(SLOTS, max(1, len(texts))), progress=progress):
        pass
    longest = max((len(text.ids) for text in texts), default=0)
    filled = [text.ids + [text.ids[-1]] * (longest - len(text.ids)) for text in texts]
    return torch.tensor(filled, dtype=prompts.dtype, device=next(model.parameters()).device)


@torch.inference_mode()
def continuations(
    model: Transformer,
    beginning: Tensor,
    recent: int,
    uniforms: Tensor,
    sampling: Sampling,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Several continuations of each beginning, in the one window that it begins: it does not move.

    What is drawn depends on ``uniforms`` alone, so a batch may be cut anyhow, up to rounding.

    Args:
        beginning: [batch, p] of token ids, the first ``recent`` of them R.
        uniforms: [batch, K, m] float64 in [0, 1): token j of continuation k is where its number falls in
            the distribution function.
        positions: [batch, p] of the beginning's rows; those that follow count on from the last.

    Returns:
        Tokens [batch, K, m], and their log-probabilities [batch, K, m] under the model (temperature 1, all
        tokens), nats.
    """
    cache, logits = _encoded(model, beginning, recent, positions)
    last = None if positions is None else positions[:, -1:]
    parts = [
        _branched(model, cache, logits, some, sampling, last)
        for some in uniforms.to(logits.device).split(_BRANCHES, dim=1)
    ]
    return torch.cat([tokens for tokens, _ in parts], 1), torch.cat([likely for _, likely in parts], 1)


def _encoded(
    model: Transformer, beginning: Tensor, recent: int, positions: Tensor | None
) -> tuple[Cache, Tensor]:
    """The keys of ``beginning`` [batch, p], and the logits [batch, ids] after it."""
    batch, rows = beginning.shape
    cache, logits = model.empty_cache(batch, rows), []
    texts = max(1, ROWS // rows) if beginning.device.type == "cpu" else batch
    for number, part in enumerate(cache.parts(texts)):
        some = slice(number * texts, number * texts + texts)
        at = None if positions is None else positions[some]
        logits.append(model.logits(beginning[some], slice(-1, None), recent, part, at)[:, 0])
    return cache, model.tensor.gather_last(torch.cat(logits))


def _branched(
    model: Transformer,
    cache: Cache,
    logits: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
    last: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``continuations`` of what is encoded, which ends at the positions ``last`` [batch, 1]."""
    batch, count, length = uniforms.shape
    branches = Branches(cache, count, length - 1)
    logits = logits.repeat_interleave(count, 0)
    last = None if last is None else last.repeat_interleave(count, 0)
    numbers = uniforms.reshape(batch * count, length)
    tokens, likely = [], []
    for place in range(length):
        drawn, value = draw(logits, sampling, numbers[:, place])
        tokens.append(drawn)
        likely.append(value)
        if place + 1 < length:
            at = None if last is None else last + place + 1
            following = model.logits(drawn[:, None], slice(-1, None), 0, cache=branches, positions=at)[:, 0]
            logits = model.tensor.gather_last(following)
    shape = (batch, count, length)
    return torch.stack(tokens, 1).reshape(shape), torch.stack(likely, 1).reshape(shape)


def check_prompt(prompt: Sequence[int], vocabulary: int) -> None:
    """Refuses a prompt without tokens, or with tokens that a model does not know."""
    if not len(prompt):
        raise UserError("the prompt is empty; give at least one token")
    if max(prompt) >= vocabulary or min(prompt) < 0:
        raise UserError(
            f"the prompt has token {max(prompt)}, but the model knows {vocabulary}; "
            "use the tokenizer that it was trained with"
        )
