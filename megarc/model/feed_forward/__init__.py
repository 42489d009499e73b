"""Feed-forwards: the part of a block that computes on each row alone.

In: normalised rows of the residual stream. Out: what is added to the stream.
A new one is one file here that implements ``FeedForward``, and a line in
``feed_forward_of``; nothing else names one.
"""

from megarc.model.config import ModelConfig
from megarc.model.feed_forward.experts import Experts
from megarc.model.feed_forward.feed_forward import FeedForward
from megarc.model.feed_forward.nested import NestedSwiGLU
from megarc.model.feed_forward.swiglu import SwiGLU

__all__ = ["Experts", "FeedForward", "NestedSwiGLU", "SwiGLU", "feed_forward_of"]


def feed_forward_of(config: ModelConfig) -> type[FeedForward]:
    """The feed-forward of a layer: of a model whose layers differ in it, ``config.of_layer(layer)`` is given."""
    if config.experts is not None:
        return Experts
    return SwiGLU if config.nested is None else NestedSwiGLU
