"""Mixers: the part of a block that moves information from row to row.

In: normalised rows of the residual stream, the window's mask, a cache while
decoding. Out: what is added to the stream. A new mixer is one file here that
implements ``Mixer``, and a line in ``mixer_of``; nothing else names one.
"""

from megarc.model.config import ModelConfig
from megarc.model.mixers.attention import Attention
from megarc.model.mixers.mixer import Mixer

__all__ = ["Attention", "Mixer", "mixer_of"]


def mixer_of(config: ModelConfig) -> type[Mixer]:
    """The mixer of every layer of such a model."""
    return Attention
