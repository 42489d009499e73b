"""Initial values are a function of (seed, name, rows) alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.model import ModelConfig, Record, Transformer, initial_values, initialise, record_of

CONFIG = ModelConfig(layers=2, hidden=64, heads=4, vocabulary=3000)
TABLE = Record((3072, 64), "embedding")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3072 * 64), st.integers(0, 3072 * 64))
def test_any_piece_equals_that_piece_of_the_whole(one, other):
    start, stop = sorted((one, other))
    whole = initial_values("embedding.weight", TABLE, CONFIG, 7, 0, 3072 * 64)
    assert torch.equal(initial_values("embedding.weight", TABLE, CONFIG, 7, start, stop), whole[start:stop])


def test_spread_by_kind():
    for kind, std in (("embedding", 0.02), ("hidden", 0.02), ("residual", 0.02 / 2)):
        values = initial_values("w", Record((512, 512), kind), CONFIG, 0, 0, 512 * 512)
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
