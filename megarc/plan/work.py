"""A rank's micro-batch, traced once for each way that it may be cut: bytes held and operations, by fake tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from megarc.model import (
    ExecutionConfig,
    FakePass,
    Footprint,
    Head,
    ModelConfig,
    fake_pass,
    footprint_of,
    ways_of,
)
from megarc.parallel import Group, TensorParallel
from megarc.plan.device import DeviceConfig
from megarc.plan.operations import Operation, Recorder, scaled
from megarc.train import RunConfig, dtype_of
from megarc.window import Window

_MANY = 3  # chunks of the head, beyond which those of a sample are not all traced
_FEW = 128  # loss rows of a block's trace: its head is traced for its own sake


class Work(NamedTuple):
    """Of one micro-batch on one rank.

    Attributes:
        bare: the operations of the embedding, final norm, head and loss.
        blocks: for each mixer and way of recomputing, how many of the model's blocks are so, and the operations of one.
        footprint: bytes held, of a rank with all blocks.
    """

    bare: list[Operation]
    blocks: list[tuple[int, BlockWork]]
    footprint: Footprint


class BlockWork(NamedTuple):
    """A model with one block, and the same with none: the block is what the one has more."""

    one: list[Operation]
    none: list[Operation]


class Place(NamedTuple):
    """Of a rank: among its tensor ranks, and how many share the rows of a window."""

    tensor: TensorParallel
    context: int = 1


class _Traced(NamedTuple):
    held: FakePass
    operations: list[Operation]


@dataclass
class Traces:
    """What was traced already, for one configuration and device.

    For a CPU each micro-batch is traced as it is. For a GPU the blocks are traced with one and with two samples,
    since all sizes grow by equal steps: a search needs no more.
    """

    config: RunConfig
    device: DeviceConfig
    _known: dict[tuple[object, ...], _Traced] = field(default_factory=dict)
    _works: dict[tuple[object, ...], Work] = field(default_factory=dict)

    def work(
        self, tensor: int, sequence: bool, recompute: str, micro_batch: int, context: int = 1, expert: int = 1
    ) -> Work:
        """Of a rank of so many tensor ranks, context ranks, and ranks that share experts."""
        way = (tensor, sequence, recompute, micro_batch, context, expert)
        if way not in self._works:
            place = Place(TensorParallel(Group(0, tensor), sequence, Group(0, expert)), context)
            self._works[way] = self._work(place, recompute, micro_batch)
        return self._works[way]

    def _work(self, place: Place, recompute: str, micro_batch: int) -> Work:
        config, tensor = self.config, place.tensor.size
        execution = self._execution(tensor, recompute)
        window = config.window.largest()
        bare = self._bare(execution, window, micro_batch, place)
        kinds = config.model.kinds()
        blocks = [
            (
                count,
                self._block(
                    kinds[kind], execution.model_copy(update={"recompute": way}), window, micro_batch, place
                ),
            )
            for (kind, way), count in Counter(ways_of(config.model, execution)).items()
        ]

        def run(config: ModelConfig, execution: ExecutionConfig) -> FakePass:
            if config.layers == 0:
                return bare.held
            return self._held(config, execution, window, micro_batch, place, bare.held)

        held = footprint_of(config.model, execution, run)
        return Work(bare.operations, blocks, held)

    def _bare(self, execution: ExecutionConfig, window: Window, micro_batch: int, place: Place) -> _Traced:
        """Without any block: its memory with the head's chunks, its operations as if there were one chunk."""
        model = self.config.model
        if self.device.kind == "cpu":
            return self._trace(model, execution, 0, window, micro_batch, place)
        held = self._bare_held(execution, window, micro_batch, place)
        whole = execution.model_copy(update={"head_rows": 3 * window.stride})

        def traced(count: int) -> list[Operation]:
            return self._trace(model, whole, 0, window, count, place).operations

        return _Traced(held, scaled(traced, micro_batch))

    def _bare_held(
        self, execution: ExecutionConfig, window: Window, micro_batch: int, place: Place
    ) -> FakePass:
        """From the size on at which the head's chunks are full, memory grows by equal steps."""

        def held(window: Window, count: int) -> FakePass:
            return self._trace(self.config.model, execution, 0, window, count, place).held

        chunk = execution.head_rows
        assert chunk is not None
        own = -(-window.stride // place.context)  # loss rows of a sample
        if own > _MANY * chunk:  # a long window: of samples with two and three chunks
            two, three = (
                Window(window.recent, window.causal, place.context * count * chunk) for count in (2, 3)
            )
            first, longer = held(two, 1), held(three, 1)
            second, rows = held(two, 2) if micro_batch > 1 else first, micro_batch * (own / chunk - 2)
            return FakePass(
                *(
                    round(a + (b - a) * (micro_batch - 1) + (c - a) * rows)
                    for a, b, c in zip(first, second, longer, strict=True)
                )
            )
        full = max(1, min(micro_batch - 1, -(-chunk // own)))
        counts = (full, full + 1) if micro_batch > 1 else (1, 1)
        first, second = (held(window, count) for count in counts)
        return FakePass(*(a + (b - a) * (micro_batch - full) for a, b in zip(first, second, strict=True)))

    def _execution(self, tensor: int, recompute: str) -> ExecutionConfig:
        """Of the trace: on this machine's CPU, with the rows of logits at once that the device would have."""
        given, model = self.config.execution, self.config.model
        kind = self.device.kind
        ids = model.padded_vocabulary // tensor
        rows = given.head_rows or Head(model.tokens, TensorParallel()).rows(ids, kind)
        engine = given.attention if kind == "cpu" or given.attention == "reference" else "auto"
        return given.model_copy(
            update={
                "recompute": recompute,
                "head_rows": rows,
                "attention": engine,
                "fp8": False,
                "compile": False,
            }
        )

    def _block(
        self,
        model: ModelConfig,
        execution: ExecutionConfig,
        window: Window,
        micro_batch: int,
        place: Place,
    ) -> BlockWork:
        if self.device.kind == "cpu":
            one, none = (
                self._trace(model, execution, layers, window, micro_batch, place) for layers in (1, 0)
            )
            return BlockWork(one.operations, none.operations)
        few = _few_rows(window)
        assert execution.head_rows is not None
        # One chunk, of as many samples as are traced.
        whole = execution.model_copy(update={"head_rows": max(execution.head_rows, 3 * few.stride)})

        def traced(layers: int) -> list[Operation]:
            def of(count: int) -> list[Operation]:
                return self._trace(model, whole, layers, few, count, place).operations

            return scaled(of, micro_batch)

        return BlockWork(traced(1), traced(0))

    def _held(
        self,
        model: ModelConfig,
        execution: ExecutionConfig,
        window: Window,
        micro_batch: int,
        place: Place,
        bare: FakePass,
    ) -> FakePass:
        if self.device.kind == "cpu":
            return self._trace(model, execution, 1, window, micro_batch, place).held
        few = _few_rows(window)

        def beyond(count: int) -> tuple[int, int]:
            one, none = (self._trace(model, execution, layers, few, count, place).held for layers in (1, 0))
            return one.after_forward - none.after_forward, one.block_peak - none.after_forward

        kept, peak = beyond(1)
        if micro_batch > 1:
            more = beyond(2)
            kept += (more[0] - kept) * (micro_batch - 1)
            peak += (more[1] - peak) * (micro_batch - 1)
        return FakePass(bare.after_forward + kept, bare.forward_peak, bare.after_forward + peak)

    def _trace(
        self,
        model: ModelConfig,
        execution: ExecutionConfig,
        layers: int,
        window: Window,
        micro_batch: int,
        place: Place,
    ) -> _Traced:
        if layers == 0:
            execution = execution.model_copy(update={"recompute": "none"})
        eager = execution.model_copy(update={"recompute_every": 1})
        kind = model.kind(0) if layers else None
        name = (
            kind,
            eager.recompute,
            eager.head_rows,
            layers,
            window,
            micro_batch,
            place.tensor.size,
            place.tensor.sequence,
            place.context,
            place.tensor.expert.size if layers and model.experts is not None else 1,
        )
        if name not in self._known:
            recorder = Recorder(model.narrowing.pairs(window) / place.context)
            shape = model.model_copy(update={"layers": layers, "ffn": model.width_of_ffn})
            held = fake_pass(
                shape, eager, window, micro_batch, dtype_of(self.config),
                torch.device("cpu"), place.tensor, recorder, place.context,
            )  # fmt: skip
            self._known[name] = _Traced(held, recorder.operations(self.config.execution.compile))
        return self._known[name]


def _few_rows(window: Window) -> Window:
    return Window(window.recent, window.causal, min(window.stride, _FEW))
