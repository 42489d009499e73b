"""One block: attention and feed-forward, each behind a norm, each added to the residual stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megarc.attention import Cache, attend, attend_cached
from megarc.model.config import ModelConfig
from megarc.model.record import Kind, attach


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

    def __init__(self, config: ModelConfig, engine: str, layer: int) -> None:
        super().__init__()
        self.attention_norm = Norm(config.hidden, config.norm_epsilon)
        self.attention = Attention(config, engine, layer)
        self.feed_forward_norm = Norm(config.hidden, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, recent: int | Tensor, documents: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """``x`` [batch, rows, hidden] -> the same shape."""
        x = x + self.attention(self.attention_norm(x), recent, documents, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Attention(nn.Module):
    """Grouped-query attention under the window's mask, with rotary positions."""

    def __init__(self, config: ModelConfig, engine: str, layer: int) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim = config.heads, config.groups, config.width_of_head
        self.rope_base = config.rope_base if config.learned_positions is None else None
        self.engine, self.layer = engine, layer
        self.query = Linear(config.hidden, self.heads * self.head_dim, "hidden")
        self.key_value = Linear(config.hidden, 2 * self.groups * self.head_dim, "hidden")
        self.out = Linear(self.heads * self.head_dim, config.hidden, "residual")
        self.query_norm = Norm(self.head_dim, config.norm_epsilon) if config.qk_norm else nn.Identity()
        self.key_norm = Norm(self.head_dim, config.norm_epsilon) if config.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, recent: int | Tensor, documents: Tensor | None, cache: Cache | None
    ) -> Tensor:
        batch, rows, _ = x.shape
        # [batch, rows, heads * head_dim] -> [batch, heads, rows, head_dim]; keys first, then values
        q = self.query(x).view(batch, rows, self.heads, self.head_dim).transpose(1, 2)
        k, v = self.key_value(x).view(batch, rows, 2, self.groups, self.head_dim).transpose(1, 3).unbind(2)
        q, k = self.query_norm(q), self.key_norm(k)
        first = 0 if cache is None else cache.length
        if self.rope_base is not None:
            q, k = rotate(q, first, self.rope_base), rotate(k, first, self.rope_base)
        if cache is None:
            mixed = attend(q, k, v, recent, documents, engine=self.engine)
        else:
            k, v = cache.append(self.layer, k, v)
            mixed = attend_cached(q, k, v, recent if first == 0 else 0, engine=self.engine)
        return self.out(mixed.transpose(1, 2).reshape(batch, rows, -1))


class FeedForward(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``, gate and up as one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.hidden, 2 * config.width_of_ffn, "hidden")
        self.down = Linear(config.width_of_ffn, config.hidden, "residual")

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Linear(nn.Module):
    """``x W^T`` without bias, ``W`` [outputs, inputs]; its values come from ``initial.py``."""

    def __init__(self, inputs: int, outputs: int, kind: Kind) -> None:
        super().__init__()
        self.weight = attach(nn.Parameter(torch.empty(outputs, inputs)), kind)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Norm(nn.Module):
    """RMSNorm with a gain, over the last dimension."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = attach(nn.Parameter(torch.empty(width)), "norm")

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


def rotate(x: Tensor, first: int, base: float) -> Tensor:
    """Rotary positions (Su et al. 2021, 2104.09864) of rows ``first ..``.

    ``x`` is [batch, heads, rows, head_dim]. Halves are paired (i, i + d/2). Angles
    are float32 whatever ``x`` is: in bf16 neighbouring rows would fall together.
    """
    half = x.shape[-1] // 2
    rows = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float32)
    wave = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = rows[:, None] * wave  # [rows, head_dim / 2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
