"""The coordinate check: standard fails, muP holds over widths, CompleteP over depths too."""

import json

import pytest
from support.scripts import python

from megarc.science.coordinates import LAYERS, Coordinate, slopes

STEPS = 4
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Slopes by parametrization: over widths and over depths, each by layer."""
    folder = tmp_path_factory.mktemp("coordinates")
    python(
        "launch/coordinate_check.py", "--to", folder, "--config", "configs/demo/chase.yaml", "--steps", STEPS,
        "--widths", "32,64,128,256", "--depths", "2,4,8,16", "model.head_dim=16", "model.hidden=32",
        "model.heads=2", "model.ffn=64", "batch.size=8", "optimizer.lr=0.01", "schedule.warmup=1 steps",
        "schedule.kind=constant", "device=cpu", timeout=800,
    )  # fmt: skip
    assert (folder / "width.png").stat().st_size > 10_000 and (folder / "depth.png").stat().st_size > 10_000
    listed = json.loads((folder / "coordinates.json").read_text())
    points = {name: [Coordinate(**one) for one in values] for name, values in listed.items()}
    wide = {name: [one for one in values if one.depth == 2] for name, values in points.items()}
    deep = {name: [one for one in values if one.width == 32] for name, values in points.items()}
    return (
        {name: slopes(values, STEPS, lambda one: one.width) for name, values in wide.items()},
        {name: slopes(values, STEPS, lambda one: one.depth) for name, values in deep.items()},
    )


def test_over_widths_standard_fails_and_mup_holds(found):
    over_widths, _ = found
    assert set(over_widths["mup"]) == set(LAYERS)
    for layer in ("attention", "feed_forward", "stream"):
        assert over_widths["standard"][layer] > 1.5 > 0.6 > abs(over_widths["mup"][layer]), layer
    assert over_widths["standard"]["logits"] > 0.3 > 0 > over_widths["mup"]["logits"]
    assert over_widths["completep"] == over_widths["mup"]  # at the base depth they are one


def test_over_depths_completep_alone_holds(found):
    _, over_depths = found
    stream = {name: slope["stream"] for name, slope in over_depths.items()}
    assert min(stream["standard"], stream["mup"]) > 0.9 > 0.45 > abs(stream["completep"])
