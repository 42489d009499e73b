"""A step of Muon on the buffers that ZeRO hands an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from megarc.parallel import Group, Groups, Overlap, gather_objects
from megarc.train.config import MuonConfig
from megarc.train.engine.factors import Factors
from megarc.train.engine.muon.newton_schulz import orthogonalised, with_equal_rows
from megarc.train.engine.muon.sharing import Matrix, Place, Route, Sharing, matrices_of
from megarc.train.engine.places import Piece

_MATCH = 0.2  # root mean square of AdamW's updates, about (Liu et al. 2025, 2502.16982, section 2.2)


OF_EXPERTS = -1
"""The call of experts that data ranks share out: they are a group of their own."""


def call_of(piece: Piece) -> int:
    """In which of the engine's calls a piece is updated."""
    return OF_EXPERTS if piece.record.experts > 1 else piece.call


class _Call(NamedTuple):
    """One of the calls in which an engine updates its matrices: ZeRO 3 makes several, others one for each group."""

    sharing: Sharing
    pieces: dict[str, Piece]
    factors: dict[str, Factors]


class Muon:
    """The blocks' matrices of this rank's stage. All ranks of the stage call ``step`` together."""

    def __init__(self, keys: MuonConfig, groups: Groups, sharded: bool) -> None:
        self.keys, self.group, self.device = keys, groups.stage, groups.device
        ranks = groups.topology.stage(groups.world.rank)
        topology = groups.topology
        self._places = [Place(topology.place(rank)["tensor"], topology.replica(rank)) for rank in ranks]
        self._sharded = sharded
        self._calls: dict[int, _Call] = {}

    def arrange(self, pieces: Sequence[Piece], factors_of: Callable[[Piece], Factors]) -> None:
        """Ranks tell each other what they hold, once."""
        own = {piece.name: (call_of(piece), piece.boxes) for piece in pieces}
        everyone = gather_objects(own, self.group)
        calls = {name: call for held in everyone for name, (call, _) in held.items()}
        matrices = _all_matrices(pieces, self.group)
        for call in sorted(set(calls.values())):
            names = {name for name, number in calls.items() if number == call}
            holdings = [
                {name: boxes for name, (_, boxes) in held.items() if name in names} for held in everyone
            ]
            listed = [matrix for matrix in matrices if matrix.name in names]
            mine = {piece.name: piece for piece in pieces if piece.name in names}
            factors = {name: factors_of(piece) for name, piece in mine.items()}
            self._calls[call] = _Call(Sharing(listed, holdings, self._places, self._sharded), mine, factors)

    def step(
        self,
        call: int,
        momenta: Mapping[Tensor, Tensor],
        lr: float,
        decay: float,
        bad: Tensor | None,
        divisor: Tensor | None,
    ) -> None:
        """Updates masters and momenta.

        Args:
            momenta: of each buffer with a gradient, its momentum.
            decay: what weight decays are multiplied by.
            bad: a scalar; where it is not 0, masters and momenta stay as they are.
            divisor: of the gradients.
        """
        sharing, pieces, factors = self._calls[call]
        directions = {
            flat: self._direction(flat, momentum, bad, divisor) for flat, momentum in momenta.items()
        }
        mine = {name: piece.of(directions[piece.flat]) for name, piece in pieces.items() if piece.size}
        full = self._gather(sharing, mine)
        for matrix, update in self._orthogonalise(sharing, full):
            full[matrix] = update
        self._scatter(sharing, full, mine)
        for name, piece in pieces.items():
            if piece.size:
                _apply(piece.of(piece.flat.data), mine[name], factors[name], lr, decay, bad)

    def _direction(
        self, flat: Tensor, momentum: Tensor, bad: Tensor | None, divisor: Tensor | None
    ) -> Tensor:
        """What is orthogonalised, laid out as ``flat``: the momentum, a step ahead of itself (Nesterov)."""
        assert flat.grad is not None
        gradient = flat.grad.to(torch.float32)
        if divisor is not None:
            gradient = gradient / divisor.to(gradient.device)
        after = momentum.lerp(gradient, 1 - self.keys.momentum)
        ahead = gradient.lerp(after, self.keys.momentum) if self.keys.nesterov else after.clone()
        momentum.copy_(after if bad is None else torch.where(bad.to(after.device) != 0, momentum, after))
        return ahead

    def _gather(self, sharing: Sharing, mine: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """The matrices that this rank owns, whole."""
        me, ranks = self.group.rank, range(sharing.ranks)
        outgoing = [
            [sharing.gives(me, owner) for owner in ranks],
            [sharing.gives(holder, me) for holder in ranks],
        ]
        sends = [
            _packed([_run(mine[sharing.matrices[route.matrix].name], run, target=False)
                     for route in routes for run in route.runs], self.device)
            for routes in outgoing[0]
        ]  # fmt: skip
        received = _exchanged(sends, [_elements(routes) for routes in outgoing[1]], self.group)
        full = {
            number: torch.empty(sharing.matrices[number].part.size, device=self.device)
            for number in sharing.owned(me)
        }
        for values, routes in zip(received, outgoing[1], strict=True):
            _unpack(
                values, [_run(full[route.matrix], run, target=True) for route in routes for run in route.runs]
            )
        return full

    def _scatter(self, sharing: Sharing, full: Mapping[int, Tensor], mine: Mapping[str, Tensor]) -> None:
        """Brings the updates of whole matrices back to where their parts are, into ``mine``."""
        me, ranks = self.group.rank, range(sharing.ranks)
        sends = [
            _packed([_run(full[route.matrix], run, target=True)
                     for route in sharing.parts(holder, me) for run in route.runs], self.device)
            for holder in ranks
        ]  # fmt: skip
        coming = [sharing.parts(me, owner) for owner in ranks]
        received = _exchanged(sends, [_elements(routes) for routes in coming], self.group)
        for values, routes in zip(received, coming, strict=True):
            _unpack(values, [_run(mine[sharing.matrices[route.matrix].name], run, target=False)
                             for route in routes for run in route.runs])  # fmt: skip

    def _orthogonalise(self, sharing: Sharing, full: Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
        """The updates of the matrices that this rank owns; those of equal shape are computed at once."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for number in full:
            matrix = sharing.matrices[number]
            by_shape.setdefault((matrix.rows, matrix.columns), []).append(number)
        found: list[tuple[int, Tensor]] = []
        for shape, numbers in by_shape.items():
            stack = torch.stack([full[number].view(shape) for number in numbers])
            done = orthogonalised(stack, self.keys.iterations, self._dtype)
            done = (with_equal_rows(done) if self.keys.equal_rows else done) * scale_of(self.keys, *shape)
            found += zip(numbers, (one.reshape(-1) for one in done), strict=True)
        return found

    @property
    def _dtype(self) -> torch.dtype:
        fast = self.device.type == "cuda" if self.keys.precision == "auto" else self.keys.precision == "bf16"
        return torch.bfloat16 if fast else torch.float32


def scale_of(keys: MuonConfig, rows: int, columns: int) -> float:
    """What an orthogonal matrix of this shape is multiplied by to become an update."""
    if keys.scale == "match_adamw":
        return float(_MATCH * max(rows, columns) ** 0.5)
    return float(max(1.0, rows / columns) ** 0.5)


def _all_matrices(pieces: Sequence[Piece], group: Group) -> list[Matrix]:
    """Of the stage, in the order of its parameters: a rank under ZeRO 1 or 2 may hold nothing of some."""
    found: dict[str, list[Matrix]] = {}
    for listed in gather_objects({one.name: matrices_of(one.name, one.record) for one in pieces}, group):
        found.update(listed)
    return [matrix for name in sorted(found) for matrix in found[name]]


def _apply(
    master: Tensor, update: Tensor, factors: Factors, lr: float, decay: float, bad: Tensor | None
) -> None:
    """``master`` [elements] shrinks by its decay and takes the update, or, where it is bad, stays."""
    rate = lr * factors.rate
    if bad is None:
        master.mul_(1 - rate * factors.decay * decay).sub_(update, alpha=rate)
        return
    kept = (bad == 0).to(master.device, master.dtype)
    update = torch.where(kept != 0, update, 0.0)
    master.mul_(1 - rate * factors.decay * decay * kept).sub_(update, alpha=rate)


def _run(flat: Tensor, run: Overlap, *, target: bool) -> Tensor:
    """The view [rows, width] of a run in the matrix (``target``) or in a rank's fragment."""
    offset, pitch = (run.target, run.target_pitch) if target else (run.source, run.source_pitch)
    return torch.as_strided(flat, (run.rows, run.width), (pitch, 1), flat.storage_offset() + offset)


def _elements(routes: Iterable[Route]) -> int:
    return sum(route.elements for route in routes)


def _packed(views: Sequence[Tensor], device: torch.device) -> Tensor:
    if not views:
        return torch.empty(0, device=device)
    return torch.cat([view.reshape(-1) for view in views]).to(device)


def _unpack(values: Tensor, views: Sequence[Tensor]) -> None:
    for view, part in zip(views, values.split([view.numel() for view in views]), strict=True):
        view.copy_(part.view(view.shape))


def _exchanged(sends: Sequence[Tensor], sizes: list[int], group: Group) -> Sequence[Tensor]:
    """What each rank of the group sends to this one, of known sizes."""
    if group.size == 1:
        return sends
    received = sends[0].new_empty(sum(sizes))
    given = [len(values) for values in sends]
    dist.all_to_all_single(received, torch.cat(list(sends)), sizes, given, group=group.handle)
    return received.split(sizes)
