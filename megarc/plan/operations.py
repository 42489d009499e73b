"""What one micro-batch computes and sends, operator by operator, from the layers themselves.

The real code runs with fake tensors (``megarc.model.activation_memory``). Each operator becomes an ``Operation``: a
matrix product with its shape, attention with the FLOPs of exactly the allowed pairs, anything else with the
bytes that it reads and writes, or a collective of the tensor group with its bytes.

Compiled code runs operators that follow each other as one kernel: it reads what comes from outside and writes
what is used later. The operators between two products are therefore counted as one, where ``fused`` is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

from megarc.model import Allocated
from megarc.window import pairs

Kind = Literal[
    "product", "attention", "memory", "reduce", "gather", "scatter", "gather_rows", "scatter_rows", "exchange"
]  # fmt: skip
Part = Literal["embedding", "rest"]

_FREE = ("prim", "profiler", "c10d")  # namespaces that compute nothing
_NO_VALUES = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_PRODUCTS = {
    "mm": (0, 1),
    "addmm": (1, 2),
    "addmm_": (1, 2),
    "bmm": (0, 1),
    "baddbmm": (1, 2),
    "_scaled_mm": (0, 1),
}
_COSTLY_VALUES = (
    "exp", "log", "silu", "silu_backward", "gelu", "gelu_backward", "sigmoid", "tanh", "_softmax", "_log_softmax",
    "_softmax_backward_data", "_log_softmax_backward_data", "logsumexp", "pow", "cos", "sin", "erf",
)  # fmt: skip
BACKWARD_PAIRS = 2.5
"""FLOPs of attention's backward pass over those of its forward pass: five products instead of two."""


class Operation(NamedTuple):
    """One kernel, or one collective.

    Attributes:
        rows, columns, inner: of a product, ``batch`` of them.
        flops: of a product or of attention.
        read_written: bytes.
        functions: elements of exp, log and the like among what it computes: a CPU is slower at them.
        operators: how many of torch's it stands for.
        backward: whether it belongs to the backward pass, with all that is computed again there.
    """

    kind: Kind
    backward: bool = False
    part: Part = "rest"
    batch: float = 1
    rows: float = 0
    columns: float = 0
    inner: float = 0
    width: float = 2
    flops: float = 0
    read_written: float = 0
    functions: float = 0
    operators: float = 1


def scaled(traced: Callable[[int], list[Operation]], micro_batch: int) -> list[Operation]:
    """The operations of ``micro_batch`` samples from those of fewer: all sizes grow by equal steps.

    A single sample may need fewer copies (a transposed tensor is contiguous already); then two and three are taken.
    """
    first, base = traced(1), 1
    if micro_batch == 1:
        return first
    second = traced(2)
    if [one.kind for one in first] != [one.kind for one in second]:
        first, base = second, 2
        second = traced(3) if micro_batch > 2 else second
    return [_beyond(one, two, micro_batch - base) for one, two in zip(first, second, strict=True)]


def _beyond(first: Operation, second: Operation, steps: int) -> Operation:
    def at(a: float, b: float) -> float:
        return a + (b - a) * steps

    product = first.kind == "product"
    batch, rows, columns, inner = (
        at(a, b) if product else a for a, b in zip(first[3:7], second[3:7], strict=True)
    )
    return first._replace(
        batch=batch, rows=rows, columns=columns, inner=inner,
        flops=2 * batch * rows * columns * inner if product else at(first.flops, second.flops),
        read_written=at(first.read_written, second.read_written),
        functions=at(first.functions, second.functions),
    )  # fmt: skip


class _Seen(NamedTuple):
    """An operator that only moves memory: numbers of storages and bytes, as they came in and went out."""

    inside: dict[int, int]
    outside: dict[int, int]
    functions: int
    part: Part


@dataclass
class Recorder:
    """A ``megarc.model.activation_memory.Watch``: keeps what a fake pass computes and sends.

    Attributes:
        pairs: (query, key) pairs of a sample that a context rank computes, where it has some of the rows.
    """

    pairs: float = 0.0

    _items: list[Operation | _Seen] = field(default_factory=list)
    _uses: list[set[int]] = field(default_factory=list)  # storages that each item reads
    _in_backward: list[bool] = field(default_factory=list)
    _backward: bool = False

    def backward(self) -> None:
        self._backward = True

    def sent(self, kind: str, tensor: Tensor) -> None:
        self._add(Operation(kind, read_written=tensor.numel() * tensor.element_size()), set())  # type: ignore[arg-type]

    def computed(self, function: Any, args: Any, kwargs: Any, made: list[Tensor], known: Allocated) -> None:
        name = getattr(function, "_opname", "")
        if function.namespace in _FREE or name in _NO_VALUES:
            return
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inside = {known.number(tensor): _bytes(tensor) for tensor in given}
        outside = {known.number(tensor): _bytes(tensor) for tensor in made}
        moved = sum(inside.values()) + sum(outside.values())
        if name in _PRODUCTS:
            left, right = (args[place] for place in _PRODUCTS[name])
            self._add(_product(left, right, moved), set(inside))
        elif name in ("grouped_matmul", "grouped_outer"):
            self._add(_grouped(name, args, moved), set(inside))
        elif _is_attention(function.namespace, name, args):
            self._add(_attention(name, args, kwargs, moved, self.pairs), set(inside))
        elif not set(outside) <= set(inside) or function._schema.is_mutable:  # else a view: nothing is moved
            costly = sum(tensor.numel() for tensor in made) if name in _COSTLY_VALUES else 0
            part: Part = "embedding" if name.startswith("embedding") else "rest"
            self._add(_Seen(inside, outside, costly, part), set(inside))

    def operations(self, fused: bool) -> list[Operation]:
        """All of them in their order; ``fused``: as compiled code runs them."""
        return list(self._fused() if fused else self._eager())

    def _add(self, item: Operation | _Seen, uses: set[int]) -> None:
        self._items.append(item)
        self._uses.append(uses)
        self._in_backward.append(self._backward)

    def _eager(self) -> Iterator[Operation]:
        for item, backward in zip(self._items, self._in_backward, strict=True):
            if isinstance(item, Operation):
                yield item._replace(backward=backward)
            else:
                moved = sum(item.inside.values()) + sum(item.outside.values())
                yield Operation("memory", backward, item.part, read_written=moved, functions=item.functions)

    def _fused(self) -> Iterator[Operation]:
        last_use: dict[int, int] = {}
        for place, uses in enumerate(self._uses):
            last_use.update(dict.fromkeys(uses, place))
        group: list[_Seen] = []
        for place, item in enumerate(self._items):
            backward = self._in_backward[place]
            ends = isinstance(item, Operation) or backward != self._in_backward[place - 1]
            if group and (ends or item.part != group[0].part):
                yield _one_kernel(group, self._in_backward[place - 1], place, last_use)
                group = []
            if isinstance(item, Operation):
                yield item._replace(backward=backward)
            else:
                group.append(item)
        if group:
            yield _one_kernel(group, self._in_backward[-1], len(self._items), last_use)


def _one_kernel(group: list[_Seen], backward: bool, end: int, last_use: dict[int, int]) -> Operation:
    """It reads what others made and writes what is used from item ``end`` on."""
    made: dict[int, int] = {}
    read: dict[int, int] = {}
    for item in group:
        for number, size in item.inside.items():
            if number not in made:
                read[number] = max(size, read.get(number, 0))
        made.update(item.outside)
    written = sum(size for number, size in made.items() if last_use.get(number, -1) >= end)
    functions = sum(item.functions for item in group)
    return Operation(
        "memory", backward, group[0].part, read_written=sum(read.values()) + written, functions=functions,
        operators=len(group),
    )  # fmt: skip


def _bytes(tensor: Tensor) -> int:
    """That are read or written: an expanded tensor's own."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _product(left: Tensor, right: Tensor, moved: int) -> Operation:
    batch = left.shape[0] if left.dim() == 3 else 1
    rows, inner = left.shape[-2:]
    columns = right.shape[-1]
    return Operation(
        "product", batch=batch, rows=rows, columns=columns, inner=inner, width=left.element_size(),
        flops=2 * batch * rows * columns * inner, read_written=moved,
    )  # fmt: skip


def _grouped(name: str, args: Any, moved: int) -> Operation:
    """Each expert's rows times its own matrix (``megarc.model.feed_forward.experts``), as many rows for each."""
    left, right, counts = args
    experts = counts.shape[0]
    rows, columns, inner = len(left) / experts, right.shape[1], left.shape[1]
    if name == "grouped_outer":
        rows, columns, inner = left.shape[1], right.shape[1], len(left) / experts
    return Operation(
        "product", batch=experts, rows=rows, columns=columns, inner=inner, width=left.element_size(),
        flops=2 * experts * rows * columns * inner, read_written=moved,
    )  # fmt: skip


def _is_attention(namespace: str, name: str, args: Any) -> bool:
    return "attention" in name or (
        namespace == "megarc"
        and len(args) > 4
        and all(isinstance(one, Tensor) and one.dim() == 4 for one in args[:3])
    )


def _attention(name: str, args: Any, kwargs: Any, moved: int, of_some: float) -> Operation:
    """An engine of ours has (q, k, v, scale, recent, ..), backward with the gradient before and out, lse behind v.

    Where rows are fewer than keys, a sample has the pairs ``of_some``.
    """
    backward = "backward" in name
    q, k = args[1:3] if backward else args[:2]
    batch, heads, rows, head_dim = q.shape
    recent = next((one for one in args if isinstance(one, int) and not isinstance(one, bool)), None)
    if recent is None:  # torch's own
        causal = kwargs.get("is_causal", any(one is True for one in args))
        recent = 0 if causal else rows
    allowed = of_some if k.shape[2] > rows else pairs(rows, recent)
    flops = 4 * head_dim * batch * heads * allowed
    return Operation(
        "attention", rows=rows, width=q.element_size(), flops=flops * (BACKWARD_PAIRS if backward else 1),
        read_written=moved,
    )  # fmt: skip
