"""The place between the gradient and the update: there it is clipped, or the update is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """On an update; two scalars on the device, the same on every rank.

    Attributes:
        bad: bool; the update is left out.
        divisor: float32; of the gradients, so that their norm is clipped.
    """

    bad: Tensor
    divisor: Tensor


class UpdateGate:
    """Stands before the optimizer's step and asks for a verdict once a step, when the gradient's norm is known.

    Where an update is left out, masters, moments and their counters stay as they are. All that an engine does around
    it goes on: gradients are dropped and buffers let go as after any step, so that it works alike at every ZeRO stage
    and in a pipeline.

    Our optimizer and torch's fused AdamW take the verdict on the device, by the two attributes through which torch's
    GradScaler speaks to one: nobody waits, and the division costs no pass over the gradients. For other code the host
    reads the verdict.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._decide: Callable[[], Verdict] | None = None
        self._verdict: Verdict | None = None
        step = optimizer.step
        takes_it = bool(getattr(optimizer, "takes_verdict", optimizer.defaults.get("fused", False)))

        def gated() -> object:
            verdict, parameters = self.verdict(), _with_gradients(optimizer)
            if takes_it:
                # the host, where offloaded
                place = parameters[0].device if parameters else verdict.bad.device
                optimizer.found_inf = verdict.bad.to(place, torch.float32)
                optimizer.grad_scale = verdict.divisor.to(place)
                return step()
            if bool(verdict.bad):
                return None
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.div_(verdict.divisor.to(parameter.grad.device))
            return step()

        optimizer.step = gated

    def verdict(self) -> Verdict:
        """Of this step; it is made at the first call."""
        if self._verdict is None:
            assert self._decide is not None, "the optimizer steps outside of a step"
            self._verdict = self._decide()
        return self._verdict

    @contextmanager
    def deciding(self, decide: Callable[[], Verdict]) -> Iterator[None]:
        """While the block runs one step, ``decide`` decides; it is called exactly once, by every rank."""
        self._decide, self._verdict = decide, None
        yield
        # Where the engine itself refused a gradient that is not finite, the optimizer was never called.
        self.verdict()
        self._decide = None


def _with_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
