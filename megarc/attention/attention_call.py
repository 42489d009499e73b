"""One attention call as the engines hand it on: what goes in, and what its backward pass is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Queries ``[B, H, m, d]``, keys and values ``[B, Hkv, t, d]``, and what multiplies q.k."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float

    @property
    def rows(self) -> int:
        """m."""
        return self.q.shape[2]

    def part(self, rows: slice = ALL, keys: slice = ALL, sample: slice = ALL) -> Inputs:
        """Some rows and some keys (of some samples), as views."""
        k, v = self.k[sample, :, keys], self.v[sample, :, keys]
        return Inputs(self.q[sample, :, rows], k, v, self.scale)


@dataclass(frozen=True, slots=True)
class Outputs:
    """``out [B, H, m, d]``, its natural log-sum-exp ``lse [B, H, m]``, and the gradient of ``out``."""

    grad: Tensor
    out: Tensor
    lse: Tensor

    def part(self, rows: slice = ALL, sample: slice = ALL) -> Outputs:
        """Those of some rows (of some samples), as views."""
        grad, out = self.grad[sample, :, rows], self.out[sample, :, rows]
        return Outputs(grad, out, self.lse[sample, :, rows])


Grads = tuple[Tensor, Tensor, Tensor]
"""Of q, k and v, shaped as they are."""
