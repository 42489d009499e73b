"""Tables hold what they were given, at the right side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.report import table

CELL = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=5))
def test_every_cell_is_found_again(rows):
    lines = table(["a", "b", "c"], rows).split("\n")
    assert [line.split() for line in lines[2:]] == rows
    marked = table(["a", "b", "c"], rows, markdown=True).split("\n")
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in marked[2:]] == rows
    assert len({len(line) for line in marked}) == 1


def test_numbers_stand_at_the_right_and_text_at_the_left():
    text = table(["arm", "loss"], [["causal", "10.5"], ["x", None], ["y", "2.25"]])
    assert text.split("\n")[2:] == ["causal  10.5", "x          -", "y       2.25"]


def test_a_bar_in_a_cell_does_not_open_a_column():
    assert table(["arm"], [["[R | C]"]], markdown=True).split("\n")[2] == r"| [R \| C] |"


def test_a_row_of_another_length_is_our_bug():
    with pytest.raises(ValueError, match="2 cells"):
        table(["a"], [["1", "2"]])


def test_a_column_of_single_digits_has_a_rule_that_markdown_knows():
    assert table(["n"], [[3]], markdown=True).splitlines()[1] == "| -: |"
