"""Traces of a small universal Turing machine: the end asked directly, after a trace, or with an interpreter.

The machine is Wolfram's with 2 states and 3 symbols, which is universal on suitable infinite tapes (Smith 2007,
"Universality of Wolfram's 2,3 Turing machine"); here the tape is a circle. A model of fixed depth that answers directly
computes what TC0 can; with T tokens of trace it computes what T steps can (Merrill and Sabharwal 2023, 2310.07923).

A configuration is a token a cell: its symbol, and where the head stands also the machine's state.

    token    0 .. W-1   W      W+1 ..
    holds    start      =      end                      ask: direct
             start      :      step 1, .., step T       ask: trace; the last is the end
             start      run    end   =   end            ask: interpreter; its output is not predicted, the answer is
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.errors import UserError
from megarc.science.tasks.task import Task, TaskOptions, Tokens

SYMBOLS, STATES = 3, 2
WRITES = np.array([[1, 2, 1], [2, 2, 0]])
"""What is written, [state, symbol]."""
MOVES = np.array([[1, -1, -1], [-1, 1, 1]])
"""Where the head goes: 1 to the right."""
GOES_TO = np.array([[1, 0, 0], [0, 1, 0]])
"""The next state."""
_CELLS = SYMBOLS * (1 + STATES)  # ids of cells: a symbol, or SYMBOLS * (1 + state) + symbol under the head
_MOST_REACHED = 11
DIRECT, TRACE, RUN = _CELLS, _CELLS + 1, _CELLS + 2


class TuringOptions(TaskOptions):
    """The tape, the steps, and how the end is asked."""

    cells: int = key(7, "of the tape, a circle", ge=3, le=4096)
    steps: int = key(5, "that the machine makes", ge=1, le=256)
    ask: Literal["direct", "trace", "interpreter"] = key(
        "direct", "the end alone, after all configurations, or after the interpreter's output"
    )
    scored: Literal["all", "end"] = key("all", "of a trace: every configuration, or only the last")


class TuringTrace(Task):
    """Every cell of a configuration that is asked is predicted."""

    options, title = TuringOptions, "Turing trace"

    def _prepare(self, options: TuringOptions) -> None:
        self._cells, self._steps, self._ask = options.cells, options.steps, options.ask
        self.columns = options.cells + 2
        self.vocabulary = RUN + 1
        shown = {"direct": 1, "trace": options.steps, "interpreter": 2}[options.ask]
        self.length = options.cells * (1 + shown) + 1 + (options.ask == "interpreter")
        last_only = options.ask != "trace" or options.scored == "end"
        self.answers = range(
            self.length - (options.cells if last_only else shown * options.cells), self.length
        )
        self.guess = self._shares(last_only)

    def make(self, random: Words) -> Tokens:
        tape = below(random[:, 2:], SYMBOLS).astype(np.int64)
        head = below(random[:, 0], self._cells).astype(np.int64)
        state = below(random[:, 1], STATES).astype(np.int64)
        configurations = run(tape, head, state, self._steps)
        start, end = configurations[:, 0], configurations[:, -1]
        marks = np.array([[DIRECT, TRACE, RUN]]).repeat(len(random), axis=0)
        if self._ask == "direct":
            return np.concatenate([start, marks[:, :1], end], axis=1)
        if self._ask == "trace":
            trace = configurations[:, 1:].reshape(len(random), -1)
            return np.concatenate([start, marks[:, 1:2], trace], axis=1)
        return np.concatenate([start, marks[:, 2:], end, marks[:, :1], end], axis=1)

    def _shares(self, last_only: bool) -> npt.NDArray[np.float64]:
        """How often each id stands at each place of the asked configurations: [answers, ids].

        Exact: over every tape of the cells that the head can reach. A cell's place relative to the start of the head is
        uniform, so all places of a configuration are alike.
        """
        reach = min(self._cells, 2 * self._steps + 1)
        if reach > _MOST_REACHED:
            raise UserError(
                f"options of turing_trace: the head reaches {reach} cells in {self._steps} steps, and chance is known "
                f"up to {_MOST_REACHED}; give fewer cells or steps"
            )
        tapes = np.stack(np.unravel_index(np.arange(SYMBOLS**reach), (SYMBOLS,) * reach), axis=1)
        per_step = np.zeros((self._steps + 1, self.vocabulary))
        for state in range(STATES):
            head, states = np.full(len(tapes), reach // 2), np.full(len(tapes), state)
            for step, cells in enumerate(configurations(tapes, head, states, self._steps)):
                per_step[step] += np.bincount(cells.ravel(), minlength=self.vocabulary)
        per_step /= per_step.sum(1, keepdims=True)
        # Cells beyond the head's reach keep their uniform symbols.
        outside = np.zeros(self.vocabulary)
        outside[:SYMBOLS] = 1 / SYMBOLS
        per_step = (reach * per_step + (self._cells - reach) * outside) / self._cells
        asked = per_step[-1:] if last_only else per_step[1:]
        return asked.repeat(self._cells, axis=0)


def run(tape: Tokens, head: Tokens, state: Tokens, steps: int) -> Tokens:
    """Configurations [B, steps + 1, cells] as ids, from tapes [B, cells], heads [B] and states [B]."""
    return np.stack(list(configurations(tape, head, state, steps)), axis=1)


def configurations(tape: Tokens, head: Tokens, state: Tokens, steps: int) -> Iterator[Tokens]:
    """The same one after the other, each [B, cells]: all of them at once can take gigabytes."""
    tape, samples, cells = tape.copy(), np.arange(len(tape)), tape.shape[1]
    for _ in range(steps + 1):
        read, shown = tape[samples, head], tape.copy()
        shown[samples, head] += SYMBOLS * (1 + state)
        yield shown
        tape[samples, head] = WRITES[state, read]
        head, state = (head + MOVES[state, read]) % cells, GOES_TO[state, read]


def program(start: Tokens, steps: int) -> str:
    """Python source that prints the configuration ``steps`` after ``start`` [cells]: what an interpreter runs."""
    rules = {
        (state, symbol): (int(WRITES[state, symbol]), int(MOVES[state, symbol]), int(GOES_TO[state, symbol]))
        for state in range(STATES)
        for symbol in range(SYMBOLS)
    }
    return "\n".join(
        [
            f"cells = {[int(cell) for cell in start]}",
            f"head = next(place for place, cell in enumerate(cells) if cell >= {SYMBOLS})",
            f"state, cells[head] = divmod(cells[head] - {SYMBOLS}, {SYMBOLS})",
            f"rules = {rules}",
            f"for _ in range({steps}):",
            "    cells[head], move, state = rules[state, cells[head]]",
            "    head = (head + move) % len(cells)",
            f"cells[head] += {SYMBOLS} * (1 + state)",
            "print(*cells)",
        ]
    )
