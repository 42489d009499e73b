"""The fit of steps to a loss: the published figures, what it must find again, what it must refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.batchsize import StepsTable, critical_batch, fit_power_law, fit_steps, read_steps
from megarc.errors import UserError

# Zhang et al. 2024 (2410.21676): steps to a validation loss on C4 at context 512.
BATCHES = [64 * 2**power for power in range(9)]
PUBLISHED = {
    "85M": ([46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600], 745.3),
    "302M": ([196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879], 1393.7),
}


def table(batches, steps, **options):
    return StepsTable.of(zip(batches, steps, strict=True), place="here", **options)


@pytest.mark.parametrize("model", PUBLISHED)
def test_reproduces_the_published_critical_batch(model):
    steps, published = PUBLISHED[model]
    found = critical_batch(table(BATCHES, steps), 256)
    assert found.batch == pytest.approx(published, abs=0.1)
    assert found.interval[0] < published < found.interval[1]
    assert found.interval[1] - found.interval[0] < published / 2
    assert not found.beyond
    assert sorted(found.overheads) == [0.1, 0.2, 0.5]


@settings(max_examples=40, deadline=None)
@given(a=st.floats(50, 1e5), bend=st.floats(10, 1e4), optimal=st.floats(1, 1000))
def test_finds_exact_numbers_again(a, bend, optimal):
    """Steps made by the formula itself, unrounded: a and b come back, and so does the definition."""
    batches = [bend * 2.0**power for power in range(-4, 5)]
    b = a * bend
    found = critical_batch(table(batches, [a + b / batch for batch in batches]), optimal, resamplings=20)
    assert found.fit.a == pytest.approx(a, rel=1e-6) and found.fit.b == pytest.approx(b, rel=1e-6)
    for overhead, (batch, _) in found.overheads.items():
        linear = found.fit.steps(optimal) * optimal / batch
        assert found.fit.steps(batch) == pytest.approx((1 + overhead) * linear, rel=1e-9)


def test_no_other_fit_has_smaller_squares():
    steps = PUBLISHED["302M"][0]
    fit = fit_steps(BATCHES, steps)
    least = sum(residual**2 for residual in fit.residuals)
    x, y = np.array(BATCHES), np.log(steps)
    for a in fit.a * np.geomspace(0.9, 1.1, 21):
        for b in fit.b * np.geomspace(0.9, 1.1, 21):
            assert ((y - np.log(a + b / x)) ** 2).sum() >= least - 1e-9


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    truth = 1.2 * 256 + 0.2 * 2000
    hits = 0
    for _ in range(60):
        steps = [1000 * (1 + 2000 / batch) * math.exp(0.03 * draw.standard_normal()) for batch in BATCHES]
        low, high = critical_batch(table(BATCHES, steps, tolerance=0.2), 256, resamplings=200).interval
        hits += low <= truth <= high
    assert hits >= 48  # 95 % of 60 are 57; resampling nine residuals is known to be narrow


def test_seeds_may_repeat_a_size():
    steps = [steps for steps in PUBLISHED["85M"][0] for _ in range(3)]
    sizes = [batch for batch in BATCHES for _ in range(3)]
    assert critical_batch(table(sizes, steps), 256).batch == pytest.approx(745.3, abs=0.1)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([400, 200, 100], "3 batch sizes .* 4 or more"),
        ([400, 200, 250, 100, 90], "steps rise from 200 at batch 128 to 250 at 256.*--tolerance 0.25"),
        ([400, 200, None, 90, None], "never reached with batch 256, 1024"),
        ([400, 400, 400, 400], "do not fall"),
        ([400, 200, 100, 50], "still fall in proportion .* add larger batches"),
        ([400, 200, 0, 50], "steps are above 0"),
        ([400, 200, math.nan, 50], "steps are above 0"),
    ],
)
def test_refuses_what_allows_no_number(steps, said):
    with pytest.raises(UserError, match=said):
        critical_batch(table(BATCHES[: len(steps)], steps), 256)


def test_a_rise_within_the_tolerance_is_fitted():
    steps = [46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1650]
    with pytest.raises(UserError, match=r"--tolerance 0\.04"):
        table(BATCHES, steps)
    assert 600 < critical_batch(table(BATCHES, steps, tolerance=0.04), 256).batch < 900


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("size,steps\n1,2\n", "must name the columns batch and steps"),
        ("batch,steps\n64,x\n", "line 2, steps: 'x' is not a number"),
        ("batch,steps\n64\n", "line 2: 1 cells"),
        ("batch,steps\n64,400\n128,\n256,100\n512,90\n", "never reached with batch 128"),
        ("batch,steps\n-64,400\n", "batch -64 is not a batch size"),
    ],
)
def test_a_bad_file_is_told(tmp_path, content, said):
    path = tmp_path / "steps.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_steps(path)


def test_reads_columns_in_any_order_and_passes_others_over(tmp_path):
    path = tmp_path / "steps.csv"
    lines = [f"{steps}, s{number} ,{batch}" for number, (batch, steps) in
             enumerate(zip(BATCHES, PUBLISHED["85M"][0], strict=True))]  # fmt: skip
    path.write_text("\ufeffSteps, note, Batch\n\n" + "\n".join(reversed(lines)) + "\n")
    assert critical_batch(read_steps(path), 256).batch == pytest.approx(745.3, abs=0.1)


def test_power_law():
    law = fit_power_law([(85e6, 745.3), (302e6, 1393.7)])
    assert law.at(85e6) == pytest.approx(745.3) and law.at(302e6) == pytest.approx(1393.7)
    assert law.size_for(1393.7) == pytest.approx(302e6)
    assert fit_power_law([(x, 3 * x**0.5) for x in (1, 10, 100)]).exponent == pytest.approx(0.5)
    with pytest.raises(UserError, match="two sizes or more"):
        fit_power_law([(1, 2), (1, 3)])
