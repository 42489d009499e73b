from __future__ import annotations

import numpy as np
import pytest

from megarc.data import SourceConfig
from megarc.data.source import read_many
from megarc.errors import UserError
from megarc.science import PointerChase, accuracy, make_pointer_chase
from megarc.window import Window

WINDOW = PointerChase.window
MANY = np.arange(2000)


def test_a_solver_that_sees_what_the_mask_allows_finds_every_answer() -> None:
    """It reads only rows that the answering row sees, and checks that loss is where answers are."""
    task = PointerChase(WINDOW, seed=5)
    samples = task.read_many(MANY)
    assert samples.weights is not None
    rows = np.arange(WINDOW.rows)
    for tokens, weights in zip(samples.tokens, samples.weights, strict=True):
        bearing = [row for row in range(*WINDOW.loss_rows.indices(WINDOW.rows)) if weights[row - 24]]
        assert bearing == [*task.one_step_rows, *task.three_step_rows]
        for row in bearing:
            seen = np.where(WINDOW.allow(row, rows), tokens[:-1], -1)  # the last token is only ever a target
            answer = seen[row]
            for _ in range(1 if row in task.one_step_rows else 3):
                assert seen[answer] >= 0
                answer = seen[answer]
            assert answer == tokens[row + 1]


def test_the_function_steps_forward_by_one_to_five() -> None:
    function = PointerChase(WINDOW, seed=0).read_many(MANY).tokens[:, :24]
    jumps = function[:, :19] - np.arange(19)
    values, counts = np.unique(jumps, return_counts=True)
    assert values.tolist() == [1, 2, 3, 4, 5]
    assert np.abs(counts / jumps.size - 0.2).max() < 0.01
    assert function.max() == 23


def test_three_steps_are_asked_at_four_different_early_places() -> None:
    asked = PointerChase(WINDOW, seed=0).read_many(MANY).tokens[:, [32, 34, 36, 38]]
    assert (np.diff(np.sort(asked, axis=1), axis=1) > 0).all()
    values, counts = np.unique(asked, return_counts=True)
    assert values.tolist() == list(range(9))
    assert np.abs(counts / asked.size - 1 / 9).max() < 0.02


@pytest.mark.parametrize("backward", [False, True])
def test_chance_is_what_counting_the_answers_says(backward: bool) -> None:
    many = np.arange(20_000)
    for hard in (False, True):
        task = PointerChase(WINDOW, seed=0, backward=backward, hard_only=hard)
        rows = task.three_step_rows if hard else task.one_step_rows + task.three_step_rows
        answers = task.read_many(many).tokens[:, [row + 1 for row in rows]]
        shares = np.stack([np.bincount(column, minlength=24) for column in answers.T]) / len(many)
        nats = -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(1).mean()
        said = [
            float(word) for word in task.facts.note.replace(" by chance", "").split(", ")[1].split(" and ")
        ]
        assert task.facts.note.startswith(f"{len(rows)} answers a sample: 0 nats and accuracy 1 at best")
        assert said == pytest.approx([nats, shares.max(1).mean()], abs=0.006)


def test_a_sample_depends_on_seed_and_number_only() -> None:
    task = PointerChase(WINDOW, seed=1)
    numbers = np.asarray([2**40 - 1, 3, 10**9, 3])
    together = task.read_many(numbers).tokens
    for row, number in zip(together, numbers, strict=True):
        assert (task.read(int(number)).tokens == row).all()
    assert (PointerChase(WINDOW, seed=2).read(3).tokens != together[1]).any()
    assert len(np.unique(task.read_many(MANY).tokens, axis=0)) == len(MANY)
    assert task.digest != PointerChase(WINDOW, seed=2).digest


def test_the_causal_arm_reads_the_same_samples() -> None:
    causal = Window(recent=0, causal=40, stride=16)
    one, other = PointerChase(WINDOW, seed=3), PointerChase(causal, seed=3)
    assert (read_many(one, MANY, WINDOW).tokens == read_many(other, MANY, causal).tokens).all()
    with pytest.raises(UserError, match="pointer-chasing task has windows"):
        PointerChase(Window(512, 512, 512), seed=3)


def test_backward_is_the_mirror_image_and_steps_only_back() -> None:
    forward = PointerChase(WINDOW, seed=4).read_many(MANY).tokens
    task = PointerChase(WINDOW, seed=4, backward=True, hard_only=True)
    samples = task.read_many(MANY)
    tokens, function = samples.tokens, samples.tokens[:, :24]
    assert (function[:, ::-1] == 23 - forward[:, :24]).all() and (function <= np.arange(24)).all()
    for row in (*task.one_step_rows, *task.three_step_rows):
        answer = tokens[:, row]
        for _ in range(1 if row in task.one_step_rows else 3):
            answer = np.take_along_axis(function, answer[:, None], axis=1)[:, 0]
        assert (answer == tokens[:, row + 1]).all()
    assert samples.weights is not None and (tokens[:, -1] == 24).all()
    assert (np.flatnonzero(samples.weights[0]) + 24).tolist() == list(task.three_step_rows)
    assert task.digest != PointerChase(WINDOW, seed=4).digest == "pointer-chase-4"


def test_it_never_changes_silently() -> None:
    golden = [1, 2, 4, 6, 5, 8, 11, 12, 11, 14, 12, 12, 17, 18, 15, 18, 21, 20, 19, 22, 21, 23, 23, 23]
    golden += [23, 23, 4, 5, 5, 8, 21, 23, 8, 17, 4, 11, 1, 5, 7, 20, 24]
    assert PointerChase(WINDOW, seed=7).read(123_456_789).tokens.tolist() == golden


def test_accuracy_counts_the_answering_rows() -> None:
    task = PointerChase(WINDOW, seed=0)
    tokens = task.read_many(np.arange(500)).tokens

    def knows_one_step(given: np.ndarray) -> np.ndarray:
        assert (given == tokens[:, :-1]).all()
        guess = np.full(given.shape, -1)
        rows = list(task.one_step_rows)
        guess[:, rows] = np.take_along_axis(given, given[:, rows], axis=1)
        return guess

    assert accuracy(task, knows_one_step, 500) == {"one_step": 1.0, "three_steps": 0.0}


def test_options_that_are_none_are_refused() -> None:
    assert len(make_pointer_chase(SourceConfig(kind="pointer_chase", options={"seed": 3}), WINDOW)) == 2**40
    for options in ({"sed": 3}, {"seed": "3"}, {"order": "sideways"}, {"asked": "two"}):
        with pytest.raises(UserError, match="takes the options seed"):
            make_pointer_chase(SourceConfig(kind="pointer_chase", options=options), WINDOW)
