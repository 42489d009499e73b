"""One block: a mixer and a feed-forward, each behind a norm, each added to the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megarc.attention import Cached
from megarc.interval import Seen
from megarc.model.config import ModelConfig
from megarc.model.feed_forward import feed_forward_of
from megarc.model.layers import Norm, Projection
from megarc.model.mixers import mixer_of
from megarc.model.parametrization import branch_scale
from megarc.model.recompute import Runner, keep_all
from megarc.parallel import TensorParallel


class Block(nn.Module):
    """``x + s mixer(norm(x))``, then ``x + s feed_forward(norm(x))``; or ``x + s norm(mixer(x))`` and so on.

    s is 1 but under CompleteP (``parametrization``).

    Their parameters' canonical names begin with ``attention`` and ``feed_forward``, whatever mixer and
    feed-forward a model has.
    """

    def __init__(
        self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel, runner: Runner
    ) -> None:
        super().__init__()
        self.run, self.scale = runner.way(layer, config.kind(layer)), branch_scale(config)
        self.norm_after = config.norm_place == "after"
        width, epsilon = config.hidden, config.norm_epsilon
        self.attention_norm = Norm(width, epsilon, tensor, partial=tensor.sequence)
        self.attention = mixer_of(config.of_layer(layer))(config, engine, layer, tensor)
        self.attention.scan = runner.scan
        self.feed_forward_norm = Norm(width, epsilon, tensor, partial=tensor.sequence)
        own = config.of_layer(layer)
        self.feed_forward = feed_forward_of(own)(own, tensor)
        for part in self.modules():
            if isinstance(part, Projection) and not part.own_type:
                part.linear = runner.linear

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
        kept: int | None = None,
        read: slice | Tensor | None = None,
    ) -> Tensor:
        """``x`` [batch, rows, hidden] -> the same shape; ``kept`` as in the feed-forward, ``read`` as in the mixer."""
        if cache is not None:
            return keep_all(self.body, x, seen, cache, positions, kept, read)
        return self.run(self.body, x, seen, cache, positions, kept, read)

    def body(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None,
        positions: Tensor | None,
        kept: int | None,
        read: slice | Tensor | None = None,
    ) -> Tensor:
        """What ``forward`` computes, once or once more."""
        stream, picked = (x, {}) if read is None else (x[:, read], {"read": read})
        if self.norm_after:
            mixed = self.attention_norm(self.attention(x, seen, cache, positions, **picked))
            x = torch.add(stream, mixed, alpha=self.scale)
            return torch.add(x, self.feed_forward_norm(self.feed_forward(x, kept)), alpha=self.scale)
        mixed = self.attention(self.attention_norm(x), seen, cache, positions, **picked)
        x = torch.add(stream, mixed, alpha=self.scale)
        return torch.add(x, self.feed_forward(self.feed_forward_norm(x), kept), alpha=self.scale)
