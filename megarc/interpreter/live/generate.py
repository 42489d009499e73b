"""Generation with an interpreter: the model writes code, the machine its output, the model goes on.

Texts are written side by side by ``megarc.inference.Loop``. A text leaves it where code is closed: the piece is run,
its output is appended as given tokens, and the text comes back with a new window, which encodes R again, output and
all. The others go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

from megarc.corpus import Marks, Tokenizer, plain_ids, read_ids, write_marked
from megarc.data.counter_random import key_of
from megarc.inference import Decoder, Loop, Sampling, check_prompt, uniforms
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
        check_prompt(prompt, model.config.tokens)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(machine.workers))
        until = (marks.end_of_code,) if sampling.stop is None else (marks.end_of_code, sampling.stop)
        texts = [
            _Text(
                list(prompt), number, count, _Caller(machine, tokenizer, marks, stack), sampling.seed, until
            )
            for number, prompt in enumerate(prompts, first)
        ]
        loop = Loop(Decoder(model, len(texts), window.rows), window, sampling, len(texts))
        loop.add(text for text in texts if text.left)
        _run(loop, texts, pool, marks.end_of_code, progress)
        return [text.written for text in texts]


def _run(
    loop: Loop,
    texts: Sequence[_Text],
    pool: ThreadPoolExecutor,
    end_of_code: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Until each text has ended: pieces run while the model goes on with other texts."""
    calls: dict[Future[None], _Text] = {}
    told = 0
    while loop.busy or calls:
        for text in loop.step() if loop.busy else []:
            assert isinstance(text, _Text)
            if text.ids[-1] == end_of_code:
                calls[pool.submit(text.call)] = text
        ready = (
            wait(calls, timeout=0 if loop.busy else None, return_when=FIRST_COMPLETED).done if calls else ()
        )
        for call in ready:
            call.result()
            text = calls.pop(call)
            loop.add([text] if text.left else [])
        if progress is not None:
            drawn = sum(text.drawn for text in texts)
            progress(drawn - told)
            told = drawn


class _Text:
    """One text on its way."""

    def __init__(
        self,
        prompt: list[int],
        number: int,
        count: int,
        caller: _Caller,
        seed: int,
        until: Sequence[int],
    ) -> None:
        self.written = Written([Part("prompt", prompt)])
        self.ids, self.left, self.drawn = list(prompt), count, 0
        self._caller, self._until, self._key = caller, until, key_of("with an interpreter", seed, number)
        self._uniforms: list[float] = []

    def uniform(self) -> float:
        """Looked up by how many tokens the model has drawn."""
        if self.drawn == len(self._uniforms):
            self._uniforms += uniforms(self._key, self.drawn, 256)
        return self._uniforms[self.drawn]

    def take(self, token: int, likely: float) -> bool:
        """A token of the model's."""
        self._append("model", [token])
        self.drawn += 1
        self.left -= 1
        if token in self._until and token != self._caller.end_of_code:
            self.left = 0
        return token not in self._until and self.left > 0

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
        self.end_of_code = marks.end_of_code

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
