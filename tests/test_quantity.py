import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.quantity import Quantity


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2B tokens", 2e9, "tokens"),
        ("1 token", 1, "tokens"),
        ("1_000 steps", 1000, "steps"),
        ("1.5k windows", 1500, "samples"),
        ("3 Samples", 3, "samples"),
        ("0.1 of run", 0.1, "run"),
        (".5 of run", 0.5, "run"),
        (".25B tokens", 25e7, "tokens"),
        ("1e6 tokens", 1e6, "tokens"),
        ("60steps", 60, "steps"),
        ("2tokens", 2, "tokens"),
        ("2Ttokens", 2e12, "tokens"),
        ("5kwindows", 5000, "samples"),
        ("3M predicted tokens", 3e6, "tokens"),
        ("3M processed tokens", 3e6, "processed"),
    ],
)
def test_parse(text, amount, unit):
    assert Quantity.parse(text) == Quantity(amount, unit)


@given(st.integers(1, 10**13), st.sampled_from(["tokens", "processed", "samples", "steps"]))
def test_text_round_trip(amount, unit):
    assert Quantity.parse(str(Quantity(float(amount), unit))) == Quantity(float(amount), unit)


@pytest.mark.parametrize("unit", ["tokens", "of run"])
def test_every_amount_of_three_digits_reads_back(unit):
    """``4.1B tokens``, ``8.2M tokens``, ``0.00005 of run``: in configurations that were written, too."""
    for digits in range(1, 1000):
        for power in range(-7, -2) if unit == "of run" else range(-2, 13):
            text = f"{digits}e{power} {unit}"
            amount = Quantity.parse(text)
            assert amount.amount == Fraction(digits) * Fraction(10) ** power
            assert Quantity.parse(str(amount)) == amount, text
            assert "e" not in str(amount).split()[0]


@pytest.mark.parametrize("suffix", ["", "k", "M", "B", "T"])
def test_amounts_are_the_decimals_that_were_written(suffix):
    for tenths in range(1, 1000):
        amount = Quantity.parse(f"{tenths // 10}.{tenths % 10}{suffix} tokens").amount
        assert amount == Fraction(tenths, 10) * 1000 ** "_kMBT".find(suffix or "_")


def test_a_share_of_a_run_is_what_people_work_out():
    for percent in range(1, 101):
        assert math.ceil(Quantity.parse(f"{percent / 100} of run").amount * 100) == percent
        assert math.ceil(Quantity(percent / 100, "run").amount * 100) == percent


@given(st.integers(1, 10**12), st.sampled_from(["tokens", "processed"]), st.integers(1, 2048))
def test_samples_cover_the_amount_and_no_more(tokens, unit, stride):
    width = stride if unit == "tokens" else 2 * stride
    samples = Quantity(float(tokens), unit).in_samples(stride=stride, rows=2 * stride)
    assert (samples - 1) * width < tokens <= samples * width


@pytest.mark.parametrize("text", ["3 steps", "0.25 of run"])
def test_what_depends_on_batches_is_no_amount_of_samples(text):
    with pytest.raises(ValueError, match="not an amount of samples"):
        Quantity.parse(text).in_samples(stride=1, rows=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "tokens",
        "2 of run",
        "-3 steps",
        "3 stepz",
        "1,5 tokens of run",
        "1,5 tokens",
        "1e300 tokens",
        ". of run",
    ],
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UserError):
        Quantity.parse(text)
