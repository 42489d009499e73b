"""Rotary positions (Su et al. 2021, 2104.09864), and how their wavelengths are stretched for longer texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megarc.model.config import ModelConfig, RopeScaling


class Rotary:
    """The rotation of queries and keys in one layer, or none where the layer has no rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        skips = config.rope_skip_every is not None and (layer + 1) % config.rope_skip_every == 0
        self.used = config.learned_positions is None and not skips
        self.base, self.scaling = config.rope_base, config.rope_scaling
        self._table: tuple[Tensor, Tensor] | None = None  # of rows 0, 1, ...: only used without gradients

    def both(
        self,
        q: Tensor,
        k: Tensor,
        first: int,
        positions: Tensor | None = None,
        read: slice | Tensor | None = None,
        decoding: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, turned as ``rotate`` says; of queries there may be the rows ``read`` alone.

        While a text is decoded, the angles come from a table: a step is so small that each operator counts.
        """
        if not self.used:
            return q, k
        if decoding and not torch.is_grad_enabled() and (positions is None or k.device.type == "cpu"):
            cos, sin = self._looked_up(k, first, positions)
            turned = _turned_by_table
        else:
            cos, sin = turns(k, first, self.base, positions, self.scaling)
            turned = _turned
        k = turned(k, cos, sin)
        return turned(q, *((cos, sin) if read is None else (cos[..., read, :], sin[..., read, :]))), k

    def _looked_up(self, x: Tensor, first: int, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """``turns``, each twice: [(batch, 1,) rows, head_dim], the sines of the first half negative."""
        last = first + x.shape[-2] if positions is None else int(positions.max()) + 1
        table = self._table
        if table is None or len(table[0]) < last or table[0].dtype != x.dtype or table[0].device != x.device:
            rows = x.new_empty(2 ** (last - 1).bit_length(), x.shape[-1])
            cos, sin = turns(rows, 0, self.base, None, self.scaling)
            self._table = table = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        if positions is None:
            return table[0][first:last], table[1][first:last]
        return table[0][positions][:, None], table[1][positions][:, None]


def rotate(
    x: Tensor, first: int, base: float, positions: Tensor | None = None, scaling: RopeScaling | None = None
) -> Tensor:
    """Rotates rows ``first ..``, or those at ``positions`` [batch, rows].

    ``x`` is [batch, heads, rows, head_dim]. Halves are paired (i, i + d/2).
    """
    return _turned(x, *turns(x, first, base, positions, scaling))


def turns(
    x: Tensor, first: int, base: float, positions: Tensor | None = None, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [(batch, 1,) rows, head_dim / 2] of the angles by which rows of ``x`` turn.

    Angles are float32 whatever ``x`` is: in bf16 neighbouring rows would fall together.
    """
    half = x.shape[-1] // 2
    if positions is None:
        rows = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float32)
    else:
        rows = positions[:, None].float()  # [batch, 1, rows]: the same for all heads
    wave = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if scaling is not None:
        wave = scaled(wave, base, scaling)
    angle = rows[..., None] * wave  # [(batch, 1,) rows, head_dim / 2]
    cos, sin = angle.cos(), angle.sin()
    if scaling is not None and (grown := scaling.magnitude) != 1.0:
        cos, sin = cos * grown, sin * grown
    return cos.to(x.dtype), sin.to(x.dtype)


def _turned_by_table(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return (x * cos).addcmul_(torch.cat((x[..., half:], x[..., :half]), dim=-1), sin)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def scaled(wave: Tensor, base: float, scaling: RopeScaling) -> Tensor:
    """The angular frequencies ``wave`` [head_dim / 2], radians a row, after ``scaling``."""
    if scaling.kind == "linear":
        return wave / scaling.factor
    kept = _llama3(wave, scaling) if scaling.kind == "llama3" else _yarn(wave, base, scaling)
    return wave * kept + wave / scaling.factor * (1 - kept)


def _llama3(wave: Tensor, scaling: RopeScaling) -> Tensor:
    """The share of each frequency that stays: by how often it turns within the original rows (Llama 3.1)."""
    turns = scaling.original_rows / (2 * math.pi) * wave
    return ((turns - scaling.low_turns) / (scaling.high_turns - scaling.low_turns)).clamp(0, 1)


def _yarn(wave: Tensor, base: float, scaling: RopeScaling) -> Tensor:
    """The same of YaRN (Peng et al. 2023, 2309.00071, equation 17): a ramp over the frequency's number."""
    half = len(wave)

    def number(turns: float) -> float:  # of the frequency that turns so often within the original rows
        return half * math.log(scaling.original_rows / (2 * math.pi * turns)) / math.log(base)

    low, high = number(scaling.high_turns), number(scaling.low_turns)
    if scaling.whole_numbers:
        low, high = float(math.floor(low)), float(math.ceil(high))
    low, high = max(low, 0.0), min(high, 2.0 * half - 1)
    if low == high:
        high += 0.001
    places = torch.arange(half, device=wave.device, dtype=torch.float32)
    return 1 - ((places - low) / (high - low)).clamp(0, 1)
