"""Which widths a step trains: the same for the same seed and step, as often as the weights say."""

from collections import Counter

import pytest

from megarc.config import build
from megarc.model import ModelConfig, cost_of
from megarc.train import RunConfig
from megarc.train.schedule import Width, heaviest, passes, widths_of
from megarc.window import Window


def config(seed=0, nested=("1/4", "1/2", "1"), **objective):
    model = {"ffn": 64, "nested": nested}
    return build(RunConfig, {"seed": seed, "model": model, "objective": objective}, "test")


def test_one_is_drawn_for_each_step():
    draw, again, other = widths_of(config()), widths_of(config()), widths_of(config(seed=1))
    steps = range(3000)
    drawn = [draw(step) for step in steps]
    assert drawn == [again(step) for step in reversed(steps)][::-1]
    assert drawn != [other(step) for step in steps]
    counts = Counter(width.kept for (width,) in drawn)
    assert set(counts) == {1, 2, None}
    assert all(abs(count / 3000 - 1 / 3) < 0.04 for count in counts.values())
    assert {width.share for (width,) in drawn} == {1.0}


def test_as_often_as_the_weights_say():
    draw = widths_of(config(width_weights=[0.0, 1.0, 3.0]))
    counts = Counter(draw(step)[0].kept for step in range(3000))
    assert counts[1] == 0 and counts[2] / 3000 == pytest.approx(0.25, abs=0.03)


def test_all_at_each_step():
    keys = config(widths="all", width_weights=[1, 1, 2])
    assert widths_of(keys)(7) == [Width(1, 0.25), Width(2, 0.25), Width(None, 0.5)] == heaviest(keys)
    assert passes(keys) == 3 and passes(config()) == 1 and heaviest(config()) == [Width()]
    assert widths_of(config(nested=None))(7) == [Width()]


def test_narrow_widths_and_passes_change_what_a_step_costs():
    model = ModelConfig(layers=2, hidden=32, heads=4, ffn=64, vocabulary=100)
    whole, half = (cost_of(model.model_copy(update={"ffn": ffn}), Window.plain(16)) for ffn in (64, 32))
    assert whole.of_work(1.0, 1.0, width=0.5).training_flops == half.training_flops
    assert whole.of_work(1.0, 1.0, passes=3).training_flops == 3 * whole.training_flops
