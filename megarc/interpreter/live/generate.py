"""Generation with an interpreter: the model writes code, the machine its output, the model goes on.

A text begins a window with its newest tokens, as in ``megarc.inference.generate``. The window ends early where code
is closed: the piece is run, its output is appended as given tokens, and the next window encodes R again, output
and all. Texts of a batch whose windows are of one length are computed together, each ends when it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from megarc.corpus import Marks, Tokenizer, plain_ids, read_ids, write_marked
from megarc.data.counter_random import key_of, words
from megarc.errors import UserError
from megarc.inference import Sampling, continuations, opening
from megarc.interpreter.languages import Enduring, Language, Outcome
from megarc.interpreter.sandbox import Sandbox
from megarc.interpreter.transcripts import settled, shortened
from megarc.model import Transformer
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Machine:
    """The interpreters that a text may call.

    Attributes:
        calls: at most so many pieces of a text are run; code beyond stays without an output.
        characters: an output is cut behind so many.
        workers: pieces that run at once.
    """

    sandbox: Sandbox
    languages: Mapping[str, Language]
    calls: int = 16
    characters: int = 2000
    workers: int = 4


@dataclass(frozen=True, slots=True)
class Call:
    """A piece that the model wrote, and what became of it; None: beyond the limit of calls."""

    language: str
    source: str
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive tokens of one author."""

    author: Literal["prompt", "model", "machine"]
    ids: list[int]


@dataclass(slots=True)
class Written:
    """One text: its parts in order, and the calls that it made."""

    parts: list[Part]
    calls: list[Call] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [number for part in self.parts for number in part.ids]

    def marked(self, tokenizer: Tokenizer) -> str:
        """As marked text. An ``<out>`` behind the prompt is the machine's: the model can't draw that token."""
        return write_marked(read_ids(self.ids, tokenizer), strict=False)


def write_together(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    window: Window,
    count: int,
    tokenizer: Tokenizer,
    machine: Machine,
    sampling: Sampling | None = None,
    *,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Written]:
    """Each of ``prompts`` continued by up to ``count`` tokens of the model's, and by what its code puts out.

    What is drawn for a text depends on its prompt, its number and the seed, not on the others.

    Args:
        first: the number of the first prompt, where the prompts are some of many.
        progress: called with how many tokens more the model has written.

    Raises:
        UserError: for an empty prompt, ids beyond the vocabulary, a tokenizer without reserved tokens.
    """
    sampling = sampling or Sampling()
    marks = Marks.of(tokenizer.reserved, f"the {tokenizer.kind} tokenizer")
    never = (*sampling.never, marks.output, marks.end_of_output)
    sampling = replace(sampling, never=never)
    for prompt in prompts:
        _check(prompt, model.config.tokens)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(machine.workers))
        texts = [
            _Text(list(prompt), number, count, _Caller(machine, tokenizer, marks, stack))
            for number, prompt in enumerate(prompts, first)
        ]
        while active := [text for text in texts if text.left]:
            for together in _alike(active, window, sampling):
                drawn = _draw(model, together, window, sampling, marks)
                if progress is not None:
                    progress(drawn)
            closing = [text for text in active if text.ids[-1] == marks.end_of_code]
            for _ in pool.map(_Text.call, closing):
                pass
        return [text.written for text in texts]


class _Text:
    """One text on its way."""

    def __init__(self, prompt: list[int], number: int, count: int, caller: _Caller) -> None:
        self.written = Written([Part("prompt", prompt)])
        self.ids, self.number, self.left, self.drawn = list(prompt), number, count, 0
        self._caller = caller

    def uniforms(self, seed: int, count: int) -> npt.NDArray[np.float64]:
        """The numbers [count] in [0, 1) that decide its next tokens: looked up by how many it has drawn."""
        word = words(
            key_of("with an interpreter", seed, self.number), np.arange(self.drawn, self.drawn + count)
        )
        return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def take(self, drawn: list[int], until: Sequence[int]) -> None:
        """What the model has drawn, up to the first token that ends it."""
        drawn = drawn[: self.left]
        end = next((place + 1 for place, one in enumerate(drawn) if one in until), len(drawn))
        self._append("model", drawn[:end])
        self.drawn += end
        self.left -= end

    def call(self) -> None:
        """Runs the piece that was just closed."""
        self._append("machine", self._caller.answer(self.ids, self.written.calls))

    def _append(self, author: Literal["model", "machine"], ids: list[int]) -> None:
        if not ids:
            return
        last = self.written.parts[-1]
        if last.author == author:
            last.ids.extend(ids)
        else:
            self.written.parts.append(Part(author, list(ids)))
        self.ids += ids


class _Caller:
    """The environments of one text, one a language, begun when they are first needed."""

    def __init__(self, machine: Machine, tokenizer: Tokenizer, marks: Marks, stack: ExitStack) -> None:
        self._machine, self._tokenizer, self._marks, self._stack = machine, tokenizer, marks, stack
        self._environments: dict[str, Enduring] = {}

    def answer(self, ids: list[int], calls: list[Call]) -> list[int]:
        """The output, between its marks, of the piece that ``ids`` end with; nothing beyond the limit of calls."""
        marks = self._marks
        if marks.code not in ids:
            return []
        begun = len(ids) - 1 - ids[::-1].index(marks.code)
        if marks.end_of_code in ids[begun:-1]:
            return []  # closes nothing
        segment = read_ids(ids[begun:], self._tokenizer)[0]
        language, source = segment.language, segment.text
        if len(calls) >= self._machine.calls:
            calls.append(Call(language, source, None))
            return []
        outcome = self._run(language, source)
        calls.append(Call(language, source, outcome))
        output = settled(outcome.output)
        if outcome.status not in ("done", "failed"):
            output += f"[{outcome.status}]\n"
        inside = plain_ids(self._tokenizer, [shortened(output, self._machine.characters)])[0]
        return [marks.output, *inside.tolist(), marks.end_of_output]

    def _run(self, name: str, source: str) -> Outcome:
        language = self._machine.languages.get(name)
        if language is None:
            return Outcome(f"there is no interpreter of {name!r:.40}\n", "failed")
        if name not in self._environments:
            environment = Enduring(language, self._machine.sandbox)
            self._environments[name] = self._stack.enter_context(environment)
        return self._environments[name].run(source)


def _alike(texts: list[_Text], window: Window, sampling: Sampling) -> list[list[_Text]]:
    """Texts whose windows begin with equally many tokens, together."""
    found: dict[int, list[_Text]] = {}
    for text in texts:
        found.setdefault(opening(len(text.ids), window, sampling)[0], []).append(text)
    return list(found.values())


def _draw(model: Transformer, texts: list[_Text], window: Window, sampling: Sampling, marks: Marks) -> int:
    """Continues ``texts`` by one window at most; how many tokens were written in all."""
    begun, room = opening(len(texts[0].ids), window, sampling)
    room = min(room, max(text.left for text in texts))
    until = (marks.end_of_code,) if sampling.stop is None else (marks.end_of_code, sampling.stop)
    device = next(model.parameters()).device
    drawn, _ = continuations(
        model,
        torch.tensor([text.ids[-begun:] for text in texts], device=device),
        min(window.recent, begun - 1),
        torch.as_tensor(np.stack([text.uniforms(sampling.seed, room) for text in texts]))[:, None],
        sampling,
        until=until,
    )
    before = sum(text.drawn for text in texts)
    for text, row in zip(texts, drawn[:, 0].tolist(), strict=True):
        text.take(row, until)
        if text.ids[-1] == sampling.stop:
            text.left = 0
    return sum(text.drawn for text in texts) - before


def _check(prompt: Sequence[int], vocabulary: int) -> None:
    if not len(prompt):
        raise UserError("the prompt is empty; give at least one token")
    if max(prompt) >= vocabulary or min(prompt) < 0:
        raise UserError(
            f"the prompt has token {max(prompt)}, but the model knows {vocabulary}; "
            "use the tokenizer that it was trained with"
        )
