"""How roll-outs are drawn: by what rules, and from which random numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megarc.data.counter_random import key_of, words
from megarc.inference import Sampling
from megarc.tiers.config import WritesConfig
from megarc.tiers.rollout_layout import Tags

_BITS = 53  # of a double


def sampling_of(writes: WritesConfig, tags: Tags, known: int | None, ids: int) -> Sampling:
    """How roll-outs are drawn: never what frames them, nor what is no token.

    Args:
        known: tokens of the tokenizer; None: all of the writer's ``ids``. A trained model may have more.
    """
    never = (*tags.ids, *range(ids if known is None else known, ids))
    return Sampling(temperature=writes.temperature, top_k=writes.top_k, top_p=writes.top_p, never=never)


def draws(seed: int, tier: int, boundaries: npt.ArrayLike, writes: WritesConfig) -> npt.NDArray[np.float64]:
    """The draws at ``boundaries`` [batch]: [batch, K, m] in [0, 1), the same whoever asks."""
    per_boundary = writes.samples * writes.tokens
    numbers = np.asarray(boundaries, dtype=np.int64)[:, None] * per_boundary + np.arange(per_boundary)
    word = words(key_of("roll-outs", seed, tier), numbers) >> np.uint64(64 - _BITS)
    return (word * 2.0**-_BITS).reshape(-1, writes.samples, writes.tokens)
