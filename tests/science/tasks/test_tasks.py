"""Every theory task: answers against a solver that reads only the text, exact chances, windows, options."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from support.pairs import write_pairs

from megarc.config import build
from megarc.data import SourceConfig
from megarc.data.source import read_many
from megarc.errors import UserError
from megarc.science import MAKERS
from megarc.science.tasks import KINDS
from megarc.science.tasks.k_sum import fairest_modulus, share_of_yes
from megarc.science.tasks.turing import GOES_TO, MOVES, SYMBOLS, TRACE, WRITES, program
from megarc.train import RunConfig, open_train
from megarc.window import Window

MANY = np.arange(3000)

SHAPES = [
    ("copying", {"direction": "copy"}, 24),
    ("copying", {"direction": "reverse", "symbols": 3, "string": 5}, 10),
    ("k_sum", {"terms": 2}, 23),
    ("k_sum", {"terms": 3, "numbers": 6, "questions": 2}, 9),
    ("late_clue", {"clue": "late"}, 40),
    ("late_clue", {"clue": "early", "asked": "four"}, 40),
    ("one_way_order", {"order": "forward"}, 6),
    ("one_way_order", {"order": "backward", "ask": "states", "modulus": 7, "steps": 3}, 6),
    ("recall", {}, 23),
    ("recall", {"pairs": 3, "questions": 3, "keys": 4, "values": 2}, 11),
    ("turing_trace", {"ask": "direct"}, 14),
    ("turing_trace", {"ask": "trace", "cells": 9, "steps": 3}, 36),
    ("turing_trace", {"ask": "trace", "scored": "end"}, 42),
    ("turing_trace", {"ask": "interpreter"}, 22),
    ("word_problem", {"group": "symmetric"}, 11),
    ("word_problem", {"group": "cyclic", "points": 4, "word": 3, "questions": 2, "idle": "none"}, 6),
]
every = pytest.mark.parametrize(
    ("kind", "options", "rows"), SHAPES, ids=lambda value: str(value).replace("'", "")
)


def task_of(kind, options, rows, recent=0):
    return MAKERS[kind](
        SourceConfig(kind=kind, options=options), Window(recent, rows - recent, rows - recent)
    )


def solve(kind, task, text):
    """The answers of one sample, from the tokens before the first of them and from the questions."""
    first = min(task.answers)
    given = text[:first]
    if kind == "copying":
        string = given[:-1]
        return list(string[::-1] if task._back else string)
    if kind == "k_sum":
        modulus, numbers = task._modulus, given[: task._numbers]
        sums = {sum(some) % modulus for some in itertools.combinations(numbers, task._terms - 1)}
        return [modulus if (-text[place - 1]) % modulus in sums else modulus + 1 for place in task.answers]
    if kind == "late_clue":
        table = text[:25]
        clue = table.pop(24 if task._late else 0) - 24
        found = []
        for place, power in zip(range(25, 41, 2), (1, 1, 2, 2, 4, 4, 4, 4), strict=True):
            answer = text[place]
            for _ in range(power):
                answer = max(table[answer] - clue, 0)
            found.append(answer)
        return found[-len(task.answers) :]
    if kind == "one_way_order":
        states, state = [], 0
        for token in given[:-1] if task._forward else given[-2::-1]:
            state = (state**2 + token) % task._modulus
            states.append(state)
        return states if task._all else states[-1:]
    if kind == "recall":
        known = dict(zip(text[: 2 * task._pairs : 2], text[1 : 2 * task._pairs : 2], strict=True))
        return [known[text[place - 1]] for place in task.answers]
    if kind == "word_problem":
        found = []
        for place in task.answers:
            point = text[place - 1] - 3
            for generator in text[: task._word]:
                point = task.generators[generator][point]
            found.append(point + 3)
        return found
    tape = list(text[: task._cells])
    trace = []
    for _ in range(task._steps):
        head = next(place for place, cell in enumerate(tape) if cell >= SYMBOLS)
        state, symbol = divmod(tape[head] - SYMBOLS, SYMBOLS)
        tape[head] = WRITES[state, symbol]
        to = (head + MOVES[state, symbol]) % len(tape)
        tape[to] += SYMBOLS * (1 + GOES_TO[state, symbol])
        trace.append(list(tape))
    whole = list(itertools.chain.from_iterable(trace)) if task._ask == "trace" else trace[-1]
    return whole[-len(task.answers) :]


@every
def test_a_solver_that_reads_what_stands_before_finds_every_answer(kind, options, rows):
    task = task_of(kind, options, rows)
    samples = task.read_many(MANY[:200])
    assert samples.tokens.shape == (200, rows + 1) and samples.tokens.max() < task.vocabulary
    assert samples.weights is not None and samples.tokens.min() >= 0
    for text, weights in zip(samples.tokens.tolist(), samples.weights, strict=True):
        bearing = (np.flatnonzero(weights) + 1 + rows - len(weights)).tolist()
        assert bearing == list(task.answers)
        assert [text[place] for place in bearing] == solve(kind, task, text)


@every
def test_chance_is_what_counting_the_answers_says(kind, options, rows):
    """Of 3,000 samples: shares of each answer within 5 standard errors, loss and accuracy by them."""
    task = task_of(kind, options, rows)
    answers = task.read_many(MANY).tokens[:, list(task.answers)]
    shares = np.stack([np.bincount(column, minlength=task.vocabulary) for column in answers.T]) / len(MANY)
    exact = np.broadcast_to(task.guess, shares.shape)
    assert np.allclose(exact.sum(1), 1) and ((exact > 0) >= (shares > 0)).all()
    # Answers of one sample are not independent of each other, those of one place are.
    assert (np.abs(shares - exact) <= 5 * np.sqrt(exact * (1 - exact) / len(MANY)) + 1e-9).all()
    nats, right = task.chance
    assert f"{nats:.4f} and {right:.4f} by chance" in task.facts.note and "0 nats" in task.facts.note
    assert right == pytest.approx(np.mean([max(row) for row in exact]))
    assert nats == pytest.approx(np.mean([-sum(p * math.log(p) for p in row if p) for row in exact]))


@every
def test_a_sample_depends_on_options_and_number_only(kind, options, rows):
    task = task_of(kind, options, rows)
    numbers = np.asarray([2**40 - 1, 3, 10**9, 3])
    together = task.read_many(numbers).tokens
    for row, number in zip(together, numbers, strict=True):
        assert (task.read(int(number)).tokens == row).all()
    first = min(task.answers) - 1
    recent = task_of(kind, options, rows, first)
    assert (read_many(recent, numbers, Window(first, rows - first, rows - first)).tokens == together).all()
    assert recent.digest == task.digest != task_of(kind, {**options, "seed": 1}, rows).digest
    assert (
        task_of(kind, {**options, "seed": 1}, rows).read_many(MANY).tokens != task.read_many(MANY).tokens
    ).any()
    with pytest.raises(UserError, match=rf"recent \+ window.causal to {rows}"):
        task_of(kind, options, rows + 1)
    if first + 1 < rows:
        with pytest.raises(UserError, match=f"set window.recent to at most {first}"):
            task_of(kind, options, rows, first + 1)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("copying", {"direction": "sideways"}, "options of copying: 'direction'"),
        ("copying", {"strng": 3}, "strng.*did you mean 'string'"),
        ("recall", {"help": 1}, "unknown key 'help'; the keys are seed, pairs, questions, keys, values"),
        ("k_sum", {"modulus": 10}, "modulus is 10; it must be odd"),
        ("k_sum", {"terms": 4}, "options of k_sum: 'terms'"),
        ("k_sum", {"modulus": 1_000_001, "terms": 3}, "options of k_sum: 'modulus'"),  # would count for hours
        ("copying", {"symbols": 2**33}, "options of copying: 'symbols'"),
        ("turing_trace", {"steps": 10**9, "cells": 5}, "options of turing_trace: 'steps'"),
        # would take 90 GB
        ("turing_trace", {"steps": 1, "cells": 10**9}, "options of turing_trace: 'cells'"),
        ("word_problem", {"points": 10**9}, "options of word_problem: 'points'"),
        ("recall", {"keys": 10**9}, "options of recall: 'keys'"),
        ("late_clue", {"clue": "none"}, "options of late_clue: 'clue'"),
        ("one_way_order", {"modulus": 9}, "modulus is 9; it must be a prime"),
        ("recall", {"pairs": 20}, r"pairs at most keys \(16\)"),
        ("turing_trace", {"cells": 30, "steps": 9}, "the head reaches 19 cells"),
        ("word_problem", {"questions": 6}, "questions is 6, and there are 5 points"),
        ("recall", {"seed": "3"}, "options of recall: 'seed'"),
    ],
)
def test_options_that_are_none_are_refused(kind, options, words):
    with pytest.raises(UserError, match=words):
        task_of(kind, options, 10)


@pytest.mark.parametrize(("numbers", "modulus"), [(2, 3), (3, 5), (4, 5), (5, 7)])
def test_the_share_of_yes_is_exact(numbers, modulus):
    """Against all sequences of numbers, for every target."""
    for target in range(modulus):
        every_one = itertools.product(range(modulus), repeat=numbers)
        yes = sum(
            any((a + b) % modulus == target for a, b in itertools.combinations(some, 2)) for some in every_one
        )
        assert share_of_yes(3, numbers, modulus) == pytest.approx(yes / modulus**numbers, rel=1e-12)
    assert share_of_yes(2, numbers, modulus) == pytest.approx(1 - ((modulus - 1) / modulus) ** numbers)
    for terms in (2, 3):
        fairest = fairest_modulus(terms, 3 * numbers)
        off = [
            abs(share_of_yes(terms, 3 * numbers, odd) - 0.5) for odd in (fairest - 2, fairest, fairest + 2)
        ]
        assert off[1] == min(off)


def test_the_interpreters_output_is_what_python_prints():
    """The program of a sample, run by a Python of its own, prints the tokens that stand in the text."""
    task = task_of("turing_trace", {"ask": "interpreter"}, 22)
    texts = task.read_many(MANY[:3]).tokens
    source = "\n".join(program(text[:7], 5) for text in texts)
    said = subprocess.run(
        [sys.executable, "-I", "-c", source], capture_output=True, text=True, check=True
    ).stdout
    printed = np.array([[int(cell) for cell in line.split()] for line in said.splitlines()])
    assert (printed == texts[:, 8:15]).all() and (printed == texts[:, 16:]).all()


def test_a_trace_goes_one_step_at_a_time_from_the_same_starts():
    direct = task_of("turing_trace", {"ask": "direct"}, 14).read_many(MANY).tokens
    trace = task_of("turing_trace", {"ask": "trace"}, 42).read_many(MANY).tokens
    assert (direct[:, :7] == trace[:, :7]).all() and (direct[:, 8:] == trace[:, -7:]).all()
    assert (trace[:, 7] == TRACE).all()
    steps = np.delete(trace, 7, axis=1).reshape(len(MANY), 6, 7)
    assert ((steps >= SYMBOLS).sum(2) == 1).all() and (
        np.sum(steps[:, 1:] != steps[:, :-1], axis=2) <= 2
    ).all()


def test_no_row_before_a_late_clue_can_know_what_its_pointer_means():
    texts = task_of("late_clue", {"clue": "late"}, 40).read_many(MANY).tokens
    assert (texts[:, :24] <= np.maximum(np.arange(24) - 1, 0)).all() and set(texts[:, 24]) == {24, 25, 26}
    early = task_of("late_clue", {"clue": "early"}, 40).read_many(MANY).tokens
    assert (early[:, 0] == texts[:, 24]).all() and (early[:, 1:25] == texts[:, :24]).all()
    assert (early[:, 25:] == texts[:, 25:]).all()


def test_they_never_change_silently():
    golden = {kind: task_of(kind, {"seed": 7}, task_rows).read(123_456_789).tokens.tolist()
              for kind, task_rows in (("recall", 23), ("word_problem", 11), ("k_sum", 23))}  # fmt: skip
    assert golden == GOLDEN
    assert set(KINDS) <= set(MAKERS)


GOLDEN = {
    "recall": [15, 18, 8, 27, 5, 18, 12, 24, 11, 16, 13, 20, 3, 19, 6, 27, 11, 16, 15, 18, 8, 27, 5, 18],
    "word_problem": [0, 0, 0, 0, 1, 0, 3, 4, 6, 7, 7, 3],
    "k_sum": [13, 8, 4, 12, 5, 9, 2, 6, 9, 5, 12, 8, 12, 17, 2, 18, 12, 17, 2, 18, 10, 18, 9, 17],
}


def test_beside_packed_documents_a_task_keeps_its_samples(tmp_path):
    """Each sample has one of three R; answers keep their loss, whatever packing does to the documents."""
    write_pairs(tmp_path / "pairs")
    tree = {
        "length": "9 steps",
        "window": {"recent": 24, "causal": 16, "mix": [{"share": 0.5, "recent": 0}, {"share": 0.25, "recent": 8}]},
        "data": {"train": [{"kind": "late_clue"}, {"path": str(tmp_path / "pairs")}], "packing": "best_fit"},
    }  # fmt: skip
    stream = open_train(build(RunConfig, tree, "test"), MAKERS)
    batch = stream.read(0, 200)
    source, number = stream._order.places(0, 200)
    ours = np.flatnonzero(source == 0)
    task = task_of("late_clue", {}, 40, 24)
    assert 60 < len(ours) < 140 and (batch.tokens[ours] == task.read_many(number[ours]).tokens).all()
    bearing = [sorted(np.flatnonzero(row) + 1) for row in batch.weights[ours]]
    assert bearing == [list(task.answers)] * len(ours) and set(batch.weights[ours].ravel()) == {0.0, 1.0}
    assert (batch.documents[ours] == 0).all() and set(batch.recent_end[ours].ravel()) == {0, 8, 24}
    assert (batch.recent_end[ours] == batch.recent[ours][:, None]).all()
