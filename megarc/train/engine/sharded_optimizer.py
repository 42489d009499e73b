"""The optimizer of a run: AdamW, or Muon beside it, on whatever part of a parameter a rank holds.

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

from megarc.model import expert_group_name, record_of
from megarc.train.config import OptimizerConfig
from megarc.train.engine.factors import Factors, OverBatch
from megarc.train.engine.muon import OF_EXPERTS, Muon, call_of
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

    def __init__(self, model: nn.Module, keys: OptimizerConfig, muon: Muon | None = None) -> None:
        self.keys, self.muon = keys, muon
        parameters = list(model.parameters())
        shared_out = [p for p in parameters if record_of(p).experts > 1]
        matrices = [p for p in parameters if record_of(p).in_block and record_of(p).experts == 1]
        others = [p for p in parameters if not record_of(p).in_block]
        listed = [{"params": matrices, "by_muon": muon is not None}, {"params": others, "by_muon": False}]
        if shared_out:
            # DeepSpeed shares these out over the data ranks that hold the same experts.
            name = expert_group_name(record_of(shared_out[0]).experts)
            listed.append({"params": shared_out, "by_muon": muon is not None, "moe": True, "name": name})
        super().__init__(listed, {"lr": keys.lr})
        self._spans: dict[Tensor, list[_Span]] = {}
        self._calls: dict[Tensor, int] = {}  # of Muon's buffers
        self._arranged = False
        self.over_batch = OverBatch(keys.beta2, 1.0)

    def arrange(self, pieces: Iterable[Piece], factors_of: Callable[[Piece], Factors]) -> None:
        """Says what lies where in the engine's buffers."""
        listed = list(pieces)
        if self.muon is not None:
            of_muon = [piece for piece in listed if piece.record.in_block]
            listed = [piece for piece in listed if not piece.record.in_block]
            self._calls = {piece.flat: call_of(piece) for piece in of_muon}
            self.muon.arrange(of_muon, factors_of)
        found: dict[Tensor, list[_Span]] = {}
        for piece in listed:
            if piece.size:
                span = _Span(piece.offset, piece.offset + piece.size, factors_of(piece))
                found.setdefault(piece.flat, []).append(span)
        self._spans = {flat: _joined(spans) for flat, spans in found.items()}
        self._arranged = True

    def moments(self, flat: Tensor) -> dict[str, Tensor]:
        """The state of a buffer, made here where there is none yet."""
        state: dict[str, Tensor] = self.state[flat]
        if "step" not in state:
            state["step"] = torch.zeros((), device=flat.device)
            for name in ("exp_avg",) if flat in self._calls else ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(flat.data, dtype=torch.float32)
        return state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates the buffers that have a gradient."""
        if not self._arranged:
            return
        for group in self.param_groups:
            flats = [flat for flat in group["params"] if flat.grad is not None]
            if not flats:
                continue
            if group["by_muon"]:
                # Of a buffer that holds nothing but padding; others wait for this rank all the same.
                of_padding = OF_EXPERTS if group.get("moe") else 0
                self._update_by_muon(flats, group["lr"], of_padding)
            else:
                self._update_by_adamw([flat for flat in flats if flat in self._spans], group["lr"])

    def _update_by_muon(self, flats: list[Tensor], lr: float, of_padding: int) -> None:
        assert self.muon is not None
        for flat in flats:
            self._calls.setdefault(flat, of_padding)
        momenta = {flat: self.moments(flat)["exp_avg"] for flat in flats}
        self.muon.step(
            self._calls[flats[0]], momenta, lr, self.over_batch.decay, self.found_inf, self.grad_scale
        )

    def _update_by_adamw(self, flats: list[Tensor], lr: float) -> None:
        for flat in flats:
            self.moments(flat)["step"].add_(1)
        for factors, listed in self._by_factors(flats).items():
            self._adam(factors, lr, listed)
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
            beta2=self.over_batch.beta2,
            weight_decay=factors.decay * self.over_batch.decay,
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
