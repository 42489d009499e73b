"""Experts of a step: what was counted over context and data ranks, and the bias that keeps them equally busy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megarc.model import Router, Tally
from megarc.parallel import Groups, all_reduce_sum


class Load(NamedTuple):
    """Of one layer since it was read last.

    Attributes:
        counts: rows that each expert got.
        entropy: of the router's shares, in nats, a mean over rows.
        balance: E sum_i f_i p_i, a mean over windows: 1 where all is even.
        z_loss: mean square of the router's log-sum-exp.
        dropped: assignments of rows to experts that no expert got.
    """

    layer: int
    counts: list[float]
    entropy: float
    balance: float
    z_loss: float
    dropped: float


class ExpertBalance:
    """The routers of this rank's stage. All context and data ranks of a stage call its methods together."""

    def __init__(self, routers: Sequence[tuple[str, Router]], groups: Groups) -> None:
        self.groups = groups
        self._layers = [int(name.split(".")[1]) for name, _ in routers]
        self._routers = [router for _, router in routers]
        for router in self._routers:
            router.tally = Tally()
        self._seen = self._nothing()

    @classmethod
    def of(cls, named: Iterable[tuple[str, nn.Module]], groups: Groups) -> ExpertBalance | None:
        """Of the modules with their canonical names; None where no layer has experts."""
        routers = [(name, one) for name, one in named if isinstance(one, Router)]
        return cls(routers, groups) if routers else None

    def begin(self, samples: int) -> None:
        """Before a step, of so many samples on this rank."""
        for router in self._routers:
            router.tally = Tally(share=1 / samples)

    @torch.no_grad()
    def end(self, bad: Tensor) -> None:
        """After a step: biases move towards balance, or stay where its update was ``bad``."""
        counted = self._nothing()
        for row, router in zip(counted, self._routers, strict=True):
            assert router.tally is not None
            if router.tally.sums.numel():
                row.copy_(router.tally.sums)
        all_reduce_sum(counted, self.groups.replicas)
        good = (~bad).to(counted.dtype)
        self._seen += counted * good
        for row, router in zip(counted, self._routers, strict=True):
            if router.balance is not None:
                counts = row[: router.keys.count]
                less = (counts.mean() - counts).sign() * good
                # Wang et al. 2024, 2408.15664, algorithm 1.
                router.balance += (router.keys.bias_rate * less).to(router.balance.dtype)

    def came(self) -> list[float]:
        """Of each layer, the rows that came to this rank's experts in the last step, over an even share of them."""
        size, rank = self.groups.expert.size, self.groups.expert.rank
        counts = [router.tally.sums for router in self._routers if router.tally and router.tally.sums.numel()]
        if not counts:
            return []
        rows = all_reduce_sum(torch.stack(counts)[:, : -Tally.OTHERS], self.groups.expert)
        own = rows.view(len(counts), size, -1)[:, rank].sum(-1)
        return [float(ratio) for ratio in own * size / rows.sum(-1)]

    def read(self) -> list[Load]:
        """Of each layer since the last call; this waits for the device."""
        seen, self._seen = self._seen.tolist(), self._nothing()
        found = []
        for layer, router, row in zip(self._layers, self._routers, seen, strict=True):
            count = router.keys.count
            *sums, given, samples = row[count:]
            entropy, balance, z_loss = (value / max(1.0, samples) for value in sums)
            found.append(Load(layer, row[:count], entropy, balance, z_loss, given - sum(row[:count])))
        return found

    def _nothing(self) -> Tensor:
        width = self._routers[0].keys.count + Tally.OTHERS
        return torch.zeros(len(self._routers), width, dtype=torch.float64, device=self.groups.device)
