"""A device as the planner sees it: peaks of its data sheet, its links, and how near to them real work comes.

A file that `launch/plan.py --calibrate` writes has the same keys, with measured rates beside them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from megarc.config import Config, build, key, read_yaml
from megarc.errors import UserError

_Positive = Annotated[float, Field(gt=0)]
_Rates = list[tuple[_Positive, _Positive]]
FROM_SYSTEM = 32 << 20
"""Bytes from which on glibc maps memory anew for each tensor (mallopt(3): the most that M_MMAP_THRESHOLD grows to)."""
_TILE = 128 * 256  # elements of a product that one unit computes at once


class LinkConfig(Config):
    """A class of links, seen from one device."""

    bandwidth: float = key(..., "bytes a second, one way, of one device", gt=0)
    latency: float = key(..., "seconds of one message", ge=0)


class ReachedConfig(Config):
    """Shares of the peaks that long, large work reaches: the fitted numbers of a generation, four at most."""

    product: float = key(0.75, "of the FLOP/s, by a large matrix product", gt=0, le=1)
    attention: float = key(0.5, "of the FLOP/s, by attention over many rows", gt=0, le=1)
    cudnn: float = key(
        1.0,
        "times as fast as that, attention by cuDNN's kernels or later ones: by published rates, not fitted",
        ge=1,
    )
    memory: float = key(0.8, "of the memory's bandwidth", gt=0, le=1)
    fp8: float = key(0.6, "of the fp8 FLOP/s, by a large product with its scales", gt=0, le=1)


class MeasuredConfig(Config):
    """What --calibrate measured on one process; empty: the data sheet is used."""

    products: _Rates = key([], "FLOPs of a product, FLOP/s it ran at; by size")
    attention: _Rates = key([], "rows, FLOP/s of attention forward")
    attention_backward: _Rates = key([], "rows, FLOP/s of attention backward")
    memory: _Rates = key([], "bytes that an operator reads and writes, bytes a second; by size")
    functions: float | None = key(None, "exp, log and the like, elements a second", gt=0)
    optimizer: float | None = key(None, "elements that AdamW updates a second", gt=0)
    crowded: tuple[_Positive, _Positive] = key(
        (1.0, 1.0),
        "times as long as alone that a product, a memory-bound operator takes beside a second rank's",
    )
    fresh: float | None = key(
        None, "bytes a second that are written where the system gives the memory first", gt=0
    )
    step: float = key(0.0, "seconds that each step takes beside its work", ge=0)


class DeviceConfig(Config):
    """One device, and the links between devices."""

    name: str = key(..., "of the device")
    kind: Literal["cuda", "cpu"] = key("cuda", "what torch calls it")
    memory_gib: float = key(..., "memory that one rank can use", gt=0)
    reserved_gib: float = key(1.5, "of it, for the driver, the communication's buffers and fragments", ge=0)
    bf16: float = key(..., "FLOP/s, dense", gt=0)
    fp32: float = key(..., "FLOP/s of float32 products as torch runs them", gt=0)
    fp8: float | None = key(None, "FLOP/s, dense; null: none", gt=0)
    bandwidth: float = key(..., "bytes a second of its memory", gt=0)
    units: int = key(1, "of the device, that compute a tile of a product each", ge=1)
    tile_seconds: float = key(
        0.0, "that a tile takes beside its FLOPs: filling and emptying its pipeline", ge=0
    )
    operator_seconds: float = key(0.0, "that an operator takes at the least", ge=0)
    node: int = key(8, "devices of a node", ge=1)
    inside: LinkConfig = key(..., "links inside a node")
    between: LinkConfig = key(..., "links between nodes")
    host: float = key(25e9, "bytes a second between a device and its host, one way", gt=0)
    host_bandwidth: float = key(25e9, "bytes a second of the host's memory, for each device", gt=0)
    reached: ReachedConfig = key(ReachedConfig, "shares of the peaks that real work reaches")
    measured: MeasuredConfig = key(MeasuredConfig, "what was measured instead")

    def crowded(self) -> DeviceConfig:
        """The device where other ranks work beside: a CPU's cores share caches, memory and, as threads, units."""
        product, memory = self.measured.crowded
        if product == memory == 1:
            return self

        def slower(table: list[tuple[float, float]], times: float) -> list[tuple[float, float]]:
            return [(size, rate / times) for size, rate in table]

        one = self.measured
        measured = one.model_copy(
            update={
                "products": slower(one.products, product), "attention": slower(one.attention, product),
                "attention_backward": slower(one.attention_backward, product),
                "memory": slower(one.memory, memory),
                "functions": one.functions and one.functions / product,
                "optimizer": one.optimizer and one.optimizer / memory,
            }
        )  # fmt: skip
        return self.model_copy(
            update={"measured": measured, "operator_seconds": self.operator_seconds * product}
        )

    def product_seconds(self, batch: float, rows: float, columns: float, inner: float, width: float, moved: float,
                        fp8: bool = False) -> float:  # fmt: skip
        """Of ``batch`` products [rows, inner] x [inner, columns] of ``width`` bytes an element."""
        flops = 2 * batch * rows * columns * inner
        if self.measured.products:
            return self.operator_seconds + flops / interpolated(self.measured.products, flops)
        peak, share = (self.bf16 if width < 4 else self.fp32), self.reached.product
        if fp8 and self.fp8 is not None:
            peak, share = self.fp8, self.reached.fp8
        # Tiles run in waves of one a unit; the last wave is as long as the others.
        tiles = batch * min(
            math.ceil(rows / 128) * math.ceil(columns / 256), math.ceil(rows / 256) * math.ceil(columns / 128)
        )
        waves = max(1.0, _waves(tiles / self.units))
        tile = 2 * _TILE * inner / (peak * share / self.units) + self.tile_seconds
        return max(waves * tile, moved / self.memory_rate, self.operator_seconds)

    def attention_seconds(
        self, flops: float, rows: float, backward: bool, width: float, engine: str = "auto"
    ) -> float:
        """Of attention over windows of so many rows, by an engine of ``megarc.attention``."""
        table = self.measured.attention_backward if backward else self.measured.attention
        if table:
            return self.operator_seconds + flops / interpolated(table, rows)
        peak = self.bf16 if width < 4 else self.fp32
        share = self.reached.attention * (1.0 if engine in _BEFORE_CUDNN else self.reached.cudnn)
        return flops / (peak * share * rows / (rows + _SHORT)) + self.operator_seconds

    def fresh_seconds(self, made: float) -> float:
        """More than otherwise, of writing a tensor of so many bytes: a large one's memory comes from the system."""
        if self.measured.fresh is None or made < FROM_SYSTEM:
            return 0.0
        return max(0.0, made / self.measured.fresh - made / interpolated(self.measured.memory, made))

    def memory_seconds(self, moved: float, functions: float = 0.0, operators: float = 1) -> float:
        """Of an operator that reads and writes so many bytes and evaluates so many functions."""
        if self.measured.memory:
            seconds = moved / interpolated(self.measured.memory, moved)
            if self.measured.functions is not None:
                seconds += functions / self.measured.functions
            return operators * self.operator_seconds + seconds
        return max(moved / self.memory_rate, self.operator_seconds)

    @property
    def memory_rate(self) -> float:
        """Bytes a second that large operators reach."""
        return self.bandwidth * self.reached.memory


_BEFORE_CUDNN = ("split_flash", "triton", "flex", "reference")
"""Engines of attention that cuDNN's kernels are faster than; ``auto`` takes cuDNN's where the device has them."""
_SHORT = 384
"""Rows at which attention reaches half of its rate: fitted to FlashAttention 2 and 3's published forward rates on an
H100 at 1k to 8k rows (2407.08608, figure 5), which it follows within 6 %."""


def _waves(exact: float) -> float:
    """Between the whole number of waves (tiles of one size) and none lost (tiles of the size that fits best)."""
    return (math.ceil(exact) + exact) / 2


def interpolated(table: list[tuple[float, float]], at: float) -> float:
    """The rate at a size, between the measured ones by its logarithm; outside them, that of the last."""
    sizes, rates = zip(*table, strict=True)
    if at <= sizes[0]:
        return rates[0]
    for place in range(1, len(sizes)):
        if at <= sizes[place]:
            low, high = math.log(sizes[place - 1]), math.log(sizes[place])
            share = (math.log(at) - low) / (high - low)
            return rates[place - 1] * (rates[place] / rates[place - 1]) ** share
    return rates[-1]


def find_device(name: str) -> DeviceConfig:
    """A known device, or the file that --calibrate wrote.

    Raises:
        UserError: where it is neither.
    """
    from megarc.plan.known_devices import ALSO, KNOWN

    plain = name.lower().replace("_", "-")
    plain = ALSO.get(plain, plain)
    if plain in KNOWN:
        return KNOWN[plain]
    path = Path(name)
    if os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
        try:
            return build(DeviceConfig, read_yaml(path), str(path))
        except ValidationError as error:
            raise UserError(f"{path} describes no device: {error}") from None
    raise UserError(
        f"no device '{name}'; known: {', '.join(KNOWN)}; or give the file that launch/plan.py --calibrate FILE wrote"
    )
