"""The same two steps on one rank in plain torch: no DeepSpeed, no other rank, of our optimizer Newton-Schulz alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megarc.model import Transformer, initial_values, record_of
from megarc.parallel import whole
from megarc.train.config import RunConfig
from megarc.train.engine import MicroBatch, dtype_of
from megarc.train.engine.muon.muon import scale_of
from megarc.train.engine.muon.newton_schulz import orthogonalised, with_equal_rows
from megarc.train.engine.muon.sharing import Matrix, matrices_of

_EPSILON = 1e-6  # beside the norm, as torch's clip_grad_norm_ has it


@dataclass
class State:
    """Of one parameter: float32 [rows, columns], a vector is one row."""

    initial: Tensor
    decays: bool
    matrices: list[Matrix]  # that Muon updates; none: AdamW does
    follows: bool  # its weights are worked out from the momentum of the ranks
    before: dict[str, Tensor] = field(default_factory=dict)  # parts, before the last step
    parts: dict[str, Tensor] = field(default_factory=dict)  # master, exp_avg, exp_avg_sq


class OneRank:
    """The tiny model with its masters and moments, all of it on this rank."""

    def __init__(self, tiny: RunConfig, device: torch.device) -> None:
        self._tiny, self._steps = tiny, 0
        self._rows = tiny.window.build().loss_rows
        self._model = Transformer(tiny.model).to(device, dtype_of(tiny))
        self.states: dict[str, State] = {}
        # Newton-Schulz raises the rounding of small singular values: in bf16, and in mixers with few heads' numbers.
        follows = tiny.precision != "fp32" or set(tiny.model.mixers) != {"attention"}
        for name, parameter in self._model.named_parameters():
            record = record_of(parameter)
            values = initial_values(name, record, tiny.model, tiny.seed, whole(record.shape)).to(device)
            # DeepSpeed takes the masters from weights that are in the run's precision already.
            master = values.to(parameter.dtype).float().view(-1, parameter.shape[-1])
            by_muon = tiny.optimizer.name == "muon" and record.in_block
            matrices = matrices_of(name, record) if by_muon else []
            state = State(master.clone(), record.decays, matrices, by_muon and follows)
            state.parts = {"master": master} | {
                moment: torch.zeros_like(master) for moment in ("exp_avg", "exp_avg_sq")
            }
            self.states[name] = state

    def step(self, batches: list[MicroBatch], rate: float, clip: float) -> Tensor:
        """One update by the mean loss over all samples; the norm of its gradient before clipping."""
        gradients = self._gradients(batches)
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        divisor = ((norm + _EPSILON) / clip).clamp(min=1.0) if clip else torch.ones_like(norm)
        self._steps += 1
        for name, gradient in gradients.items():
            update = self._muon if self.states[name].matrices else self._adam
            update(self.states[name], gradient / divisor, rate)
        return norm

    def _gradients(self, batches: list[MicroBatch]) -> dict[str, Tensor]:
        """Float32 sums over the samples, divided by the number of predictions."""
        rows = self._rows.stop - self._rows.start
        total = rows * sum(len(batch.tokens) for batch in batches)
        sums = {name: torch.zeros_like(state.initial) for name, state in self.states.items()}
        parameters = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.states[name].parts["master"].view(parameter.shape))
        for batch in batches:
            loss = self._model(
                batch.tokens, self._rows, batch.seen, z_loss=self._tiny.optimizer.z_loss
            ).objective
            gradients = torch.autograd.grad(loss / total, list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                sums[name] += gradient.view(sums[name].shape).float()
        return sums

    def _muon(self, state: State, gradient: Tensor, rate: float) -> None:
        """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), each matrix of a parameter by itself."""
        keys, momentum = self._tiny.optimizer.muon, state.parts["exp_avg"]
        state.before = {part: values.clone() for part, values in state.parts.items()}
        momentum.lerp_(gradient, 1 - keys.momentum)
        ahead = gradient.lerp(momentum, keys.momentum) if keys.nesterov else momentum
        state.parts["master"].mul_(1 - rate * self._tiny.optimizer.weight_decay * state.decays)
        for matrix in state.matrices:
            rows = slice(matrix.part.top, matrix.part.bottom)
            update = orthogonalised(ahead[rows].unsqueeze(0), keys.iterations, torch.float32)
            update = with_equal_rows(update) if keys.equal_rows else update
            scale = scale_of(keys, matrix.rows, matrix.columns)
            state.parts["master"][rows].sub_(update.squeeze(0), alpha=rate * scale)

    def follow(self, momenta: Mapping[str, Tensor], rate: float) -> None:
        """Takes the last step again with the momenta that the ranks have, where ``follows`` says so.

        Newton-Schulz raises what rounding in bf16 leaves of a gradient's small singular values. So gradients are
        compared by themselves, and weights with what the ranks' own momentum makes of them.

        Args:
            momenta: after the step, float32 [rows, columns].
        """
        beta = self._tiny.optimizer.muon.momentum
        for name, momentum in momenta.items():
            state = self.states[name]
            state.parts.update(state.before)
            gradient = (momentum - beta * state.before["exp_avg"]) / (1 - beta)
            self._muon(state, gradient.to(state.initial), rate)

    def _adam(self, state: State, gradient: Tensor, rate: float) -> None:
        """AdamW (Loshchilov and Hutter 2019, 1711.05101, algorithm 2)."""
        keys, parts = self._tiny.optimizer, state.parts
        parts["master"].mul_(1 - rate * keys.weight_decay * state.decays)
        parts["exp_avg"].lerp_(gradient, 1 - keys.beta1)
        parts["exp_avg_sq"].lerp_(gradient.square(), 1 - keys.beta2)
        mean = parts["exp_avg"] / (1 - keys.beta1**self._steps)
        root = parts["exp_avg_sq"].sqrt() / math.sqrt(1 - keys.beta2**self._steps)
        parts["master"].sub_(rate * mean / (root + keys.epsilon))
