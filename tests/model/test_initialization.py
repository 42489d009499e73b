"""Initial values are a function of (seed, name, rows) alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.model import ModelConfig, Record, Transformer, initial_values, initialise, record_of
from megarc.parallel import Box

CONFIG = ModelConfig(layers=2, hidden=64, heads=4, vocabulary=3000)
TABLE = record_of(Transformer(CONFIG).embedding.weight)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3072), st.integers(0, 3072), st.integers(0, 64), st.integers(0, 64))
def test_any_box_equals_that_box_of_the_whole(top, bottom, left, right):
    box = Box(*sorted((top, bottom)), *sorted((left, right)))
    full = initial_values("embedding.weight", TABLE, CONFIG, 7, TABLE.boxes).view(3072, 64)
    values = initial_values("embedding.weight", TABLE, CONFIG, 7, [box])
    assert torch.equal(values, full[box.top : box.bottom, box.left : box.right].reshape(-1))


def test_spread_by_kind():
    for kind, std in (("embedding", 0.02), ("hidden", 0.02), ("residual", 0.02 / 2)):
        record = Record((512, 512), kind, (Box(0, 512, 0, 512),), split=False)
        values = initial_values("w", record, CONFIG, 0, record.boxes)
        assert abs(values.std().item() / std - 1) < 0.01
        assert abs(values.mean().item()) < std / 100


def test_seed_and_name_matter_and_nothing_else():
    models = [Transformer(CONFIG) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, CONFIG, seed)
    same, again, other = (dict(model.named_parameters()) for model in models)
    for name, parameter in same.items():
        assert torch.equal(parameter, again[name])
        assert torch.equal(parameter, other[name]) == (record_of(parameter).kind == "norm")
    first, second = (same[f"blocks.{layer}.attention.query.weight"] for layer in range(2))
    assert not torch.equal(first[0], second[0])
