"""What a micro-batch's forward and backward pass hold in memory, from the layers themselves.

They run with fake tensors: real code and shapes, nothing computed or allocated,
every allocation followed from its birth to its end. One block tells what each
block keeps; the head and the block beside it tell what comes on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megarc.model.config import ExecutionConfig, ModelConfig, Recompute
from megarc.model.transformer import Transformer
from megarc.parallel import TensorParallel
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one micro-batch on one rank.

    Attributes:
        kept: by all blocks together, from the forward to the backward pass.
        top: the most that is held beside that: the head's chunk of logits, its weight's gradient, a block's
            gradients (or a block computed again).
        beside: the part of ``top`` that is left when the backward pass begins: embedded rows, and the
            gradients that the head has made already.
    """

    kept: int
    top: int
    beside: int


def footprint(
    config: ModelConfig,
    execution: ExecutionConfig,
    window: Window,
    micro_batch: int,
    dtype: torch.dtype,
    device: torch.device,
    tensor: TensorParallel | None = None,
) -> Footprint:
    """Of ``micro_batch`` samples, eager: compiled code keeps less, about half of it where nothing is recomputed."""
    eager = execution.model_copy(update={"compile": False, "recompute_every": 1})
    again = -(-config.layers // execution.recompute_every) if execution.recompute != "none" else 0
    ways: dict[Recompute, int] = {"none": config.layers - again}
    ways = {execution.recompute: again, **ways} if again else ways
    shape = (window, micro_batch, dtype, device, tensor)
    bare = _pass(config, eager, 0, *shape)
    ones = {
        way: _pass(config, eager.model_copy(update={"recompute": way}), 1, *shape)
        for way in ways
        if ways[way]
    }
    kept = {way: one.after_forward - bare.after_forward for way, one in ones.items()}
    # The last blocks' backward begins with all kept; blocks that keep all may lie above one computed again.
    above = (config.layers - 1) % execution.recompute_every if again else 0
    tops = [bare.forward_peak]
    for way, one in ones.items():
        gone = above * kept.get("none", 0) if way != "none" else 0
        tops.append(one.block_peak - kept[way] - gone)
    return Footprint(
        sum(blocks * kept.get(way, 0) for way, blocks in ways.items()), max(tops), bare.after_forward
    )


class _Pass(NamedTuple):
    """Bytes held after the forward pass; the most until then; the most until the block's backward has ended."""

    after_forward: int
    forward_peak: int
    block_peak: int


def _pass(
    config: ModelConfig,
    execution: ExecutionConfig,
    blocks: int,
    window: Window,
    micro_batch: int,
    dtype: torch.dtype,
    device: torch.device,
    tensor: TensorParallel | None,
) -> _Pass:
    """Forward and backward of a model of so many blocks."""
    shape = config.model_copy(update={"layers": blocks, "ffn": config.width_of_ffn})
    with FakeTensorMode():
        with default_dtype(dtype), torch.device(device):
            model = Transformer(shape, execution, None if tensor is None else _Silent(tensor))
            tokens = torch.zeros(micro_batch, window.tokens, dtype=torch.long)
        allocated = Allocated(model.parameters())
        ended: list[int] = []

        def watch(module: Any, given: Any, made: Tensor) -> None:
            made.register_hook(lambda gradient: ended.append(allocated.peak))

        model.embedding.register_forward_hook(watch)
        with allocated:
            loss = model(tokens, window.loss_rows, window.recent)
            after_forward, forward_peak = allocated.now, allocated.peak
            loss.objective.backward()
    return _Pass(after_forward, forward_peak, ended[0])


class Allocated(TorchDispatchMode):
    """Bytes of the tensors made under it that are still alive, and the most there ever were."""

    def __init__(self, present: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive = {tensor.untyped_storage()._cdata for tensor in present}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._alive:
            return
        self._alive.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, identity: int, size: int) -> None:
        self._alive.discard(identity)
        self.now -= size


class _Silent(TensorParallel):
    """A place in a tensor group that tells others nothing: the same shapes, no collectives."""

    def __init__(self, place: TensorParallel) -> None:
        super().__init__(place.group, place.sequence)

    def enter(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.size, dim=1) if self.sequence else x

    def leave(self, x: Tensor) -> Tensor:
        return x.chunk(self.size, dim=1)[0].clone() if self.sequence else x.clone()

    def shared(self, weight: Tensor) -> Tensor:
        return weight

    def sum(self, x: Tensor) -> Tensor:
        return x

    def maximum(self, x: Tensor) -> Tensor:
        return x.detach()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are of ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
