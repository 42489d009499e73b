"""The optimizer of a run: AdamW with hyper-parameters for each parameter, on whatever part of it a rank holds.

ZeRO hands an optimizer 1-D buffers that hold parts of many parameters, one buffer a group and call. If each kind of
parameter had a group of its own, pipeline stages would have unequal groups, and DeepSpeed all-reduces the gradient's
norm once a group: they would wait for each other for ever. So there are two groups, which every stage has: the
blocks' matrices, and the rest. Inside a buffer, spans of neighbours with the same hyper-parameters are updated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megarc.model import record_of
from megarc.train.config import OptimizerConfig
from megarc.train.engine.factors import Factors
from megarc.train.engine.places import Piece


@dataclass(frozen=True, slots=True)
class _Span:
    """Elements ``start .. stop-1`` of a buffer."""

    start: int
    stop: int
    factors: Factors


class ShardedOptimizer(torch.optim.Optimizer):
    """``arrange`` must be called once the engine has laid its buffers out; until then a step does nothing.

    A verdict of the update gate is taken on the device, through ``found_inf`` and ``grad_scale``.
    """

    takes_verdict = True
    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(self, model: nn.Module, keys: OptimizerConfig) -> None:
        self.keys = keys
        parameters = list(model.parameters())
        matrices = [p for p in parameters if record_of(p).kind in ("hidden", "residual")]
        others = [p for p in parameters if record_of(p).kind not in ("hidden", "residual")]
        super().__init__([{"params": matrices}, {"params": others}], {"lr": keys.lr})
        self._spans: dict[Tensor, list[_Span]] = {}

    def arrange(self, pieces: Iterable[Piece], factors_of: Callable[[Piece], Factors]) -> None:
        """Says what lies where in the engine's buffers."""
        found: dict[Tensor, list[_Span]] = {}
        for piece in pieces:
            span = _Span(piece.offset, piece.offset + piece.size, factors_of(piece))
            found.setdefault(piece.flat, []).append(span)
        self._spans = {flat: _joined(spans) for flat, spans in found.items()}

    def moments(self, flat: Tensor) -> dict[str, Tensor]:
        """The state of a buffer, made here where there is none yet."""
        state: dict[str, Tensor] = self.state[flat]
        if "step" not in state:
            state["step"] = torch.zeros((), device=flat.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(flat.data, dtype=torch.float32)
        return state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates the buffers that have a gradient."""
        for group in self.param_groups:
            flats = [flat for flat in group["params"] if flat.grad is not None and flat in self._spans]
            for flat in flats:
                self.moments(flat)["step"].add_(1)
            for factors, listed in self._by_factors(flats).items():
                self._adam(factors, group["lr"], listed)
            if self.found_inf is not None:
                for flat in flats:
                    self.state[flat]["step"].sub_(self.found_inf)

    def _by_factors(self, flats: Iterable[Tensor]) -> dict[Factors, list[tuple[Tensor, _Span]]]:
        found: dict[Factors, list[tuple[Tensor, _Span]]] = {}
        for flat in flats:
            for span in self._spans[flat]:
                found.setdefault(span.factors, []).append((flat, span))
        return found

    def _adam(self, factors: Factors, lr: float, listed: list[tuple[Tensor, _Span]]) -> None:
        """AdamW (Loshchilov and Hutter 2019, 1711.05101, algorithm 2), by torch's fused kernel."""
        torch._fused_adamw_(
            [_cut(flat.data, span) for flat, span in listed],
            [_cut(flat.grad, span) for flat, span in listed if flat.grad is not None],
            [_cut(self.state[flat]["exp_avg"], span) for flat, span in listed],
            [_cut(self.state[flat]["exp_avg_sq"], span) for flat, span in listed],
            [],
            [self.state[flat]["step"] for flat, _ in listed],
            lr=lr * factors.rate,
            beta1=self.keys.beta1,
            beta2=self.keys.beta2,
            weight_decay=factors.decay,
            eps=factors.epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=self.grad_scale,
            found_inf=self.found_inf,
        )


def _joined(spans: Iterable[_Span]) -> list[_Span]:
    """Spans of one buffer in their order, neighbours with the same factors as one."""
    found: list[_Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        if found and found[-1].stop == span.start and found[-1].factors == span.factors:
            found[-1] = _Span(found[-1].start, span.stop, span.factors)
        else:
            found.append(span)
    return found


def _cut(buffer: Tensor, span: _Span) -> Tensor:
    return buffer.view(-1)[span.start : span.stop]
