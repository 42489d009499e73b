"""The models of a coordinate check."""

import pytest

from megarc.config import build
from megarc.science.coordinates import shapes_of
from megarc.train import RunConfig


@pytest.mark.parametrize("width", [None, 40])
def test_experts_keep_their_ratio_to_the_width(width):
    """One of a width of its own had that at every width, so that not all of the model grew."""
    model = {"hidden": 32, "heads": 2, "ffn": 96, "experts": {"count": 4, "active": 2, "width": width}}
    shapes = shapes_of(build(RunConfig, {"model": model}, "test"), "completep", [32, 64, 128], [2, 4])
    first = width or 48
    assert [one.model.width_of_expert for one in shapes] == [first, 2 * first, 4 * first, first]
    assert all(one.model.experts.count == 4 for one in shapes)


def test_causal_heads_keep_their_share():
    """They kept their number: half of the heads became a quarter, and at a smaller width the model was refused."""
    model = {"hidden": 64, "heads": 4, "causal_heads": 2}
    shapes = shapes_of(build(RunConfig, {"model": model}, "test"), "mup", [32, 64, 128], [2])
    assert [(one.model.causal_heads, one.model.heads) for one in shapes] == [(1, 2), (2, 4), (4, 8)]
