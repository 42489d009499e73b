"""At the gate a gradient is clipped and a bad update left out, on the device or by the host: with one result."""

import pytest
import torch
from torch import nn

from megarc.train.engine.update_gate import UpdateGate, Verdict


class OfTheHost(torch.optim.Optimizer):
    """AdamW as code that takes no verdict on the device: apex's, DeepSpeed's."""

    def __init__(self, parameters, **keys):
        self.real = torch.optim.AdamW(parameters, fused=True, **keys)
        super().__init__(self.real.param_groups, {})
        self.state = self.real.state

    def step(self, closure=None):
        return self.real.step()


def trained(make, divisors_and_bad):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3))
    adam = make([weight], lr=0.1, weight_decay=0.1)
    gate = UpdateGate(adam)
    for number, (divisor, bad) in enumerate(divisors_and_bad):
        weight.grad = torch.full_like(weight, float("nan") if bad else 1.0 + number)
        calls = []

        def decide(divisor=divisor, bad=bad, calls=calls):
            calls.append(1)
            return Verdict(torch.tensor(bad), torch.tensor(divisor))

        with gate.deciding(decide):
            adam.step()
        assert len(calls) == 1
    return weight.detach(), adam.state[weight]


def plain(parameters, **keys):
    return torch.optim.AdamW(parameters, fused=True, **keys)


@pytest.mark.parametrize("make", [plain, OfTheHost], ids=["on the device", "by the host"])
def test_bad_updates_leave_no_trace_and_gradients_are_divided(make):
    weight, state = trained(make, [(1.0, False), (3.0, True), (4.0, False), (1.0, True)])
    torch.manual_seed(0)
    expected = nn.Parameter(torch.randn(5, 3))
    adam = torch.optim.AdamW([expected], lr=0.1, weight_decay=0.1)
    for gradient in (1.0, 3.0 / 4.0):
        expected.grad = torch.full_like(expected, gradient)
        adam.step()
    torch.testing.assert_close(weight, expected.detach(), rtol=1e-6, atol=1e-7)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[name], adam.state[expected][name], rtol=1e-6, atol=1e-9)
    assert float(state["step"]) == 2


def test_it_decides_where_the_optimizer_was_never_called():
    adam = plain([nn.Parameter(torch.zeros(2))])
    gate = UpdateGate(adam)
    with gate.deciding(lambda: Verdict(torch.tensor(True), torch.tensor(1.0))):
        pass
    assert bool(gate.verdict().bad)
