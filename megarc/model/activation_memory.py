"""What a micro-batch's forward and backward pass hold in memory, from the layers themselves.

They run with tensors without values: real code and shapes, nothing computed or
allocated, every allocation followed from its birth to its end. One block tells what
each block keeps; the head and the block beside it tell what comes on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megarc.interval import Seen
from megarc.model.config import ExecutionConfig, ModelConfig, Recompute
from megarc.model.feed_forward.experts import start_tallies
from megarc.model.plain_sizes import plain_sizes
from megarc.model.transformer import Transformer
from megarc.parallel import EvenExchange, Exchange, Group, RankRows, TensorParallel
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


class Run(Protocol):
    """Forward and backward pass of a model of ``config.layers`` blocks, with fake tensors."""

    def __call__(self, config: ModelConfig, execution: ExecutionConfig) -> FakePass: ...


class FakePass(NamedTuple):
    """Bytes held after the forward pass; the most until then; the most until the block's backward has ended."""

    after_forward: int
    forward_peak: int
    block_peak: int


def footprint(
    config: ModelConfig,
    execution: ExecutionConfig,
    window: Window,
    micro_batch: int,
    dtype: torch.dtype,
    device: torch.device,
    tensor: TensorParallel | None = None,
    context: int = 1,
) -> Footprint:
    """Of ``micro_batch`` samples, of whose rows a rank has one of ``context`` equal shares; eager: compiled code keeps
    less, about half of it where nothing is recomputed."""
    shape = (window, micro_batch, dtype, device, tensor)
    return footprint_of(config, execution, lambda model, way: fake_pass(model, way, *shape, context=context))


def footprint_of(config: ModelConfig, execution: ExecutionConfig, run: Run) -> Footprint:
    """The same from passes of models of no block and of one of each mixer, which ``run`` makes or remembers."""
    eager = execution.model_copy(update={"compile": False, "recompute_every": 1})
    kinds = config.kinds()
    blocks = ways_of(config, execution)
    none = next(iter(kinds.values())).model_copy(update={"layers": 0})
    bare = run(none, eager.model_copy(update={"recompute": "none"}))
    ones = {
        (name, way): run(kinds[name], eager.model_copy(update={"recompute": way}))
        for name, way in dict.fromkeys(blocks)
    }
    kept = {kind: one.after_forward - bare.after_forward for kind, one in ones.items()}
    tops = [bare.forward_peak]
    for kind, one in ones.items():
        # When a block's backward begins, what the blocks above it kept is gone.
        above = blocks[len(blocks) - blocks[::-1].index(kind) :]
        tops.append(one.block_peak - kept[kind] - sum(kept[each] for each in above))
    return Footprint(sum(kept[kind] for kind in blocks), max(tops), bare.after_forward)


def ways_of(config: ModelConfig, execution: ExecutionConfig) -> list[tuple[str, Recompute]]:
    """The kind of each block, and what of the block is computed again."""
    again, every = execution.recompute, execution.recompute_every
    return [(config.kind(layer), again if layer % every == 0 else "none") for layer in range(config.layers)]


def fake_pass(
    config: ModelConfig,
    execution: ExecutionConfig,
    window: Window,
    micro_batch: int,
    dtype: torch.dtype,
    device: torch.device,
    tensor: TensorParallel | None = None,
    watch: Watch | None = None,
    context: int = 1,
) -> FakePass:
    """One micro-batch through a model of ``config.layers`` blocks; ``watch`` sees what is computed and sent.

    Of ``context`` ranks that share the window's rows it is one with an even share of the loss rows.
    """
    pretending, place_of_tensors = _without_values(device, config)
    with pretending:
        with default_dtype(dtype), place_of_tensors:
            place = None if tensor is None else _Silent(tensor, watch)
            model = Transformer(config, execution, place)
            start_tallies(model)
            own, loss = window.rows // context, -(-window.stride // context)
            tokens = torch.zeros(micro_batch, own + 1, dtype=torch.long)
            seen: Seen = window.recent
            positions = None
            if context > 1:
                numbers, ends = torch.arange(own), torch.zeros(micro_batch, own, dtype=torch.int32)
                places = torch.arange(window.rows)
                seen = _SilentRows(ends, ends, numbers, places, Group(0, context), watch)
                positions = numbers.expand(micro_batch, -1)
        allocated = Allocated(model.parameters(), watch)
        ended: list[int] = []

        def note(module: Any, given: Any, made: Tensor) -> None:
            made.register_hook(lambda gradient: ended.append(allocated.peak))

        model.embedding.register_forward_hook(note)
        with allocated:
            found = model(tokens, slice(own - loss, own), seen, positions)
            after_forward, forward_peak = allocated.now, allocated.peak
            if watch is not None:
                watch.backward()
            found.objective.backward()
    return FakePass(after_forward, forward_peak, ended[0])


def _without_values(
    device: torch.device, config: ModelConfig
) -> tuple[AbstractContextManager[object], torch.device]:
    """A mode to run under, and where tensors are made, so that code runs as on ``device`` with shapes alone.

    Meta tensors do so for a CPU, in a quarter of the time of torch's fake tensors, which import sympy. Those know the
    device that they stand for, which decides the engine of attention on a GPU. A mixer that cuts rows out before
    attention (ssm_attention) has other strides in meta tensors, and up to 5 % other bytes: it keeps the fake ones.
    """
    cut = any(config.mixer(layer) == "ssm_attention" for layer in range(config.layers))
    if device.type == "cpu" and not cut:
        return plain_sizes(), torch.device("meta")
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(), device


class Watch(Protocol):
    """What a fake pass computes and what it would send, in its order."""

    def backward(self) -> None:
        """The forward pass has ended."""

    def computed(self, function: Any, args: Any, kwargs: Any, made: list[Tensor], known: Allocated) -> None:
        """An operator, with fake tensors, and what it made."""

    def sent(self, kind: str, elements: Tensor) -> None:
        """A collective over the tensor group, ``reduce``, ``gather`` or ``scatter``, of that whole tensor; over the
        context group, ``gather_rows`` or ``scatter_rows``; an ``exchange`` of rows with those that share experts."""


class Allocated(TorchDispatchMode):
    """Bytes of the tensors made under it that are still alive, and the most there ever were."""

    def __init__(self, present: Iterable[Tensor], watch: Watch | None = None) -> None:
        super().__init__()
        self.watch = watch
        self.now = self.peak = 0
        self._born = 0
        self._alive: dict[int, int] = {}  # a storage's address, used again after it -> its number
        for tensor in present:
            self._number(tensor.untyped_storage())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under it: torch's guard against that would load the compiler, and slow each operator."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._count(tensor.untyped_storage())
        if self.watch is not None and made:
            self.watch.computed(function, args, kwargs or {}, made, self)
        return result

    def number(self, tensor: Tensor) -> int:
        """Of its storage: views of one have the same, and no other ever has."""
        storage = tensor.untyped_storage()
        self._number(storage)  # a constant may come from elsewhere
        return self._alive[storage._cdata]

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._alive:
            return
        self._number(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _number(self, storage: torch.UntypedStorage) -> None:
        self._born += 1
        self._alive.setdefault(storage._cdata, self._born)

    def _gone(self, identity: int, size: int) -> None:
        self._alive.pop(identity, None)
        self.now -= size


class _Silent(TensorParallel):
    """A place in a tensor group that tells others nothing: the same shapes, no collectives; ``watch`` hears of them."""

    def __init__(self, place: TensorParallel, watch: Watch | None) -> None:
        super().__init__(place.group, place.sequence, place.expert)
        self.watch = watch

    def enter(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        ways = (self._gathered, self._scattered) if self.sequence else (_same, self._reduced)
        return _Both.apply(x, *ways)

    def leave(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        return _Both.apply(
            x, *((self._scattered, self._gathered) if self.sequence else (self._reduced, _same))
        )

    def shared(self, weight: Tensor) -> Tensor:
        return weight if self.size == 1 else _Both.apply(weight, _same, self._reduced)

    def sum(self, x: Tensor) -> Tensor:
        return x if self.size == 1 else _Both.apply(x, self._reduced, _same)

    def maximum(self, x: Tensor) -> Tensor:
        return x.detach() if self.size == 1 else self._reduced(x.detach())

    def exchange(self, counts: Tensor, rows: int) -> Exchange:
        return _SilentExchange(counts, rows, self.expert, self._told)

    def _reduced(self, x: Tensor) -> Tensor:
        return self._told("reduce", x.clone())

    def _gathered(self, x: Tensor) -> Tensor:
        return self._told("gather", torch.cat([x] * self.size, dim=1))

    def _scattered(self, x: Tensor) -> Tensor:
        self._told("scatter", x)
        return x.chunk(self.size, dim=1)[0].clone()

    def _told(self, kind: str, x: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch.sent(kind, x)
        return x


class _SilentExchange(EvenExchange):
    """Rows that would go to experts on other ranks and back."""

    def __init__(
        self, counts: Tensor, rows: int, group: Group, told: Callable[[str, Tensor], Tensor]
    ) -> None:
        self._told = told
        super().__init__(counts, rows, group)

    def there(self, rows: Tensor) -> Tensor:
        return _Both.apply(rows, self._exchanged, self._exchanged)

    back = there

    def _counts(self, sent: Tensor) -> Tensor:
        return self._exchanged(sent)

    def _exchanged(self, rows: Tensor) -> Tensor:
        return self._told("exchange", torch.empty_like(rows))


@dataclass(frozen=True)
class _SilentRows(RankRows):
    """Rows of a context rank that tells others nothing."""

    watch: Watch | None = None

    def gather(self, everyone: Tensor, own: Tensor) -> None:
        if self.watch is not None:
            self.watch.sent("gather_rows", everyone)

    def scatter(self, own: Tensor, everyone: Tensor) -> None:
        if self.watch is not None:
            self.watch.sent("scatter_rows", everyone)


def _same(x: Tensor) -> Tensor:
    return x.view_as(x)


class _Both(torch.autograd.Function):
    """One function forward, another backward, as ``TensorParallel`` has them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ahead: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.back = back
        return ahead(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are of ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
