"""fp8 products, emulated on the CPU by the same rounding, against plain ones."""

import pytest
import torch

import megarc.model.fp8 as fp8
from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise, no_fp8
from megarc.model.fp8 import BACKWARD, FORWARD, linear_with, product, quantised
from megarc.window import Window


def relative(one, exact):
    return ((one - exact).norm() / exact.norm()).item()


def test_a_row_comes_back_to_three_bits():
    """e4m3 has three bits of mantissa: half a step is 1/16 of a value, whatever the row's size."""
    torch.manual_seed(0)
    x = torch.randn(8, 64) * 10.0 ** torch.arange(-4, 4)[:, None]
    small, scale = quantised(x, FORWARD)
    back = small.float() * scale
    assert ((back - x).abs() <= x.abs() / 16 + scale * 2**-10).all()


def test_a_tensor_has_one_scale_and_comes_back_to_three_bits_of_its_largest_values():
    torch.manual_seed(0)
    x = torch.randn(8, 64) * 10.0 ** torch.arange(-4, 4)[:, None]
    small, scale = quantised(x, FORWARD, "tensor")
    assert scale.shape == (1, 1) and float(scale) == pytest.approx(float(x.abs().max()) / 448)
    assert small.float().abs().max() == 448
    assert ((small.float() * scale - x).abs() <= x.abs() / 16 + scale * 2**-10).all()
    assert (small[0] == 0).all(), "what is a millionth of the largest is lost, which a scale a row keeps"
    assert quantised(torch.zeros(3, 4), BACKWARD, "tensor")[0].float().eq(0).all()


@pytest.mark.parametrize("scales", ["row", "tensor"])
@pytest.mark.parametrize("inner", [32, 37])
def test_products_and_gradients(inner, scales):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 24, inner, requires_grad=True), torch.randn(48, inner, requires_grad=True)
    gradient = torch.randn(2, 24, 48)
    exact = torch.nn.functional.linear(x, weight)
    wanted = torch.autograd.grad(exact, (x, weight), gradient)
    found = linear_with(scales)(x, weight)
    assert relative(found, exact) < 0.05
    for one, other in zip(torch.autograd.grad(found, (x, weight), gradient), wanted, strict=True):
        assert relative(one, other) < 0.1  # e5m2 has two bits


@pytest.mark.parametrize("scales", ["row", "tensor"])
def test_torch_s_scaled_product_is_what_is_emulated(scales):
    torch.manual_seed(0)
    a, b = torch.randn(32, 64), torch.randn(48, 64)
    (a8, a_scale), (b8, b_scale) = quantised(a, FORWARD, scales), quantised(b, FORWARD, scales)
    if scales == "tensor":
        a_scale, b_scale = a_scale.reshape(()), b_scale.reshape(())
    found = torch._scaled_mm(a8, b8.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=torch.bfloat16)
    assert relative(found.float(), product(a, b, FORWARD, FORWARD, scales)) < 5e-3


def recurrent():
    """Heads of one width, a few numbers for each of which are projected, too."""
    keys = {"layers": 4, "mixers": "ssm crf ssm_attention attention", "crf_transitions": 2, "crf_states": 20}
    return ModelConfig(hidden=64, heads=4, head_dim=16, vocabulary=100, **keys)


@pytest.mark.parametrize("scales", ["row", "tensor"])
def test_products_of_recurrent_layers_have_shapes_that_a_gpu_takes(monkeypatch, scales):
    """torch's scaled product takes a second operand of multiples of 16 alone; what is summed over is filled up."""
    shapes, window = set(), Window.split(16, 16)
    monkeypatch.setattr(
        fp8, "product", lambda a, b, *rest: shapes.add(tuple(b.shape)) or product(a, b, *rest)
    )
    model = Transformer(recurrent(), ExecutionConfig(fp8=True, fp8_scales=scales))
    initialise(model, recurrent(), 0)
    model(
        torch.zeros(2, window.tokens, dtype=torch.long), window.loss_rows, window.recent
    ).objective.backward()
    assert shapes and all(outputs % 16 == 0 for outputs, _ in shapes)
    own = {name for name, part in model.named_modules() if getattr(part, "own_type", False)}
    assert own == {f"blocks.{name}" for name in (
        "0.attention.decay", "1.attention.potential", "1.attention.mixing", "2.attention.decay",
    )}  # fmt: skip


@pytest.mark.parametrize("scales", ["row", "tensor"])
@pytest.mark.parametrize(
    "config",
    [ModelConfig(layers=2, hidden=64, heads=4, vocabulary=100), recurrent()],
    ids=["plain", "mixers"],
)
def test_a_model_s_loss_and_gradients_stay_near(scales, config):
    window = Window.split(16, 16)
    tokens = torch.randint(0, 100, (4, window.tokens), generator=torch.Generator().manual_seed(1))
    results = []
    for switch in (False, True):
        model = Transformer(config, ExecutionConfig(fp8=switch, fp8_scales=scales))
        initialise(model, config, 0)
        loss = model(tokens, window.loss_rows, window.recent).objective
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (plain, exact), (other, gradient) = results
    assert other == pytest.approx(plain, rel=1e-3)
    assert other != plain
    assert relative(gradient, exact) < 0.1


def test_a_cpu_is_told_that_it_has_none():
    assert "no fp8" in no_fp8(torch.device("cpu"))
