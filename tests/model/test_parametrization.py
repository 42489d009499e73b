"""muP and CompleteP: the table, value by value, and what stays the same."""

import pytest
import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, adam_factors, as_standard, initialise, record_of
from megarc.model.parametrization import branch_scale, initial_std, output_scale, query_scale

BASE = {
    "layers": 2, "hidden": 32, "heads": 4, "ffn": 64, "vocabulary": 100, "base_hidden": 32, "base_layers": 2,
    "base_head_dim": 8,
}  # fmt: skip
WIDE = BASE | {"hidden": 128, "ffn": 256, "layers": 8}  # four times as wide, four times as deep
TOKENS = torch.arange(2 * 24).view(2, 24) * 7 % 100


def built(seed=3, **keys):
    config = ModelConfig(**keys)
    model = Transformer(config)
    initialise(model, config, seed)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model.logits(TOKENS, slice(4, None), 5)


@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_at_the_base_widths_it_is_the_standard_model_to_the_bit(parametrization):
    standard, other = built(**BASE), built(**BASE, parametrization=parametrization)
    assert torch.equal(logits(standard), logits(other))
    for name, parameter in other.named_parameters():
        assert adam_factors(name, record_of(parameter), other.config) == (1, 1, 1)


@pytest.mark.parametrize(
    ("parametrization", "stds", "factors", "scales"),
    [
        ("mup", (0.02, 0.01, 0.01 / 4), {"embedding.weight": (1, 1, 1 / 4), "norm.weight": (1, 1, 1 / 4),
          "blocks.7.attention_norm.weight": (1, 1, 1 / 4), "blocks.0.attention.query.weight": (1 / 4, 4, 1 / 4),
          "blocks.7.feed_forward.down.weight": (1 / 4, 4, 1 / 4), "head.weight": (1, 1, 1 / 4)},
         (1, 1 / 4, 1 / 2)),
        ("completep", (0.02, 0.01, 0.01 / 2), {"embedding.weight": (1, 1, 1 / 4), "norm.weight": (1, 1, 1 / 4),
          "blocks.7.attention_norm.weight": (1, 1, 1 / 16), "blocks.0.attention.query.weight": (1 / 4, 4, 1 / 16),
          "blocks.7.feed_forward.down.weight": (1 / 4, 4, 1 / 16), "head.weight": (1, 1, 1 / 4)},
         (1 / 4, 1 / 4, 1 / 2)),
    ],
)  # fmt: skip
def test_the_table(parametrization, stds, factors, scales):
    """Four times the width (32-wide heads, 8 in the base) and four times the depth."""
    config = ModelConfig(**WIDE, parametrization=parametrization, tied=False)
    assert tuple(initial_std(kind, config) for kind in ("embedding", "hidden", "residual")) == stds
    model = dict(Transformer(config).named_parameters())
    assert {name: adam_factors(name, record_of(model[name]), config) for name in factors} == factors
    assert (branch_scale(config), output_scale(config), query_scale(config)) == scales


@pytest.mark.parametrize("missing", ["base_hidden", "base_layers"])
def test_a_base_that_is_missing_is_named(missing):
    keys = {name: value for name, value in BASE.items() if name != missing}
    with pytest.raises(UserError, match=rf"completep needs {missing}: .* model\.{missing}="):
        build(ModelConfig, {**keys, "parametrization": "completep"}, "here")


@pytest.mark.parametrize(
    "changes",
    [{}, {"qk_norm": True, "tied": False, "kv_heads": 2}, {"attention_bias": "all"}, {"norm_place": "after"}],
)
def test_a_standard_model_computes_the_same_with_the_scales_in_its_weights(changes):
    model = built(**WIDE | changes, parametrization="completep", initial_std=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    config, fold = as_standard(model.config)
    standard = Transformer(config).eval()
    with torch.no_grad():
        for name, parameter in standard.named_parameters():
            parameter.copy_(fold(name, dict(model.named_parameters())[name]))
    assert config.parametrization == "standard"
    assert torch.equal(logits(model), logits(standard))  # the scales are powers of two
