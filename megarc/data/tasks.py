"""Tasks with a right answer, in JSON lines: multiple choice and cloze, as prompts and what may follow them.

    {"prompt": "2+3=", "choices": ["4", "5"], "answer": 1}       multiple choice: the likeliest choice should be it
    {"prompt": "The capital of France is", "target": " Paris"}    cloze: the target should be likely, and be written

The prompt is R, what follows is C: of a text whose last known token starts C, the tokens before it are R, as in
generation (``parts``). A continuation longer than a window's stride is cut, and R is encoded again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megarc.corpus import Tokenizer
from megarc.errors import UserError
from megarc.window import Window


class Pair(NamedTuple):
    """Ids that are given, one at least, and ids that may follow them."""

    context: list[int]
    continuation: list[int]


class Part(NamedTuple):
    """One forward pass: ``ids``, the first ``recent`` of them R; the last ``scored`` are predicted."""

    ids: list[int]
    recent: int
    scored: int


@dataclass(frozen=True, slots=True)
class Question:
    """A line: its pairs, the characters of each continuation, and which is right (cloze: the only one)."""

    pairs: list[Pair]
    characters: list[int]
    answer: int


@dataclass(frozen=True, slots=True)
class Task:
    """A file of questions, all of one kind."""

    name: str
    questions: list[Question]
    cloze: bool

    @property
    def pairs(self) -> list[Pair]:
        """Of all questions, in order."""
        return [pair for question in self.questions for pair in question.pairs]

    def results(self, likely: Sequence[float], greedy: Sequence[bool] | None = None) -> dict[str, float]:
        """What the log-likelihoods of ``pairs``, in nats, make of the questions.

        ``nats_per_token`` of the right answers. Multiple choice: ``accuracy`` (the likeliest choice) and
        ``accuracy_per_character`` (the likeliest for its length). Cloze, where ``greedy`` says which targets greedy
        drawing gives: ``accuracy``.
        """
        values = iter(likely)
        rows = [[next(values) for _ in question.pairs] for question in self.questions]
        right = [row[question.answer] for row, question in zip(rows, self.questions, strict=True)]
        tokens = sum(len(question.pairs[question.answer].continuation) for question in self.questions)
        found = {"nats_per_token": -math.fsum(right) / tokens}
        if not self.cloze:
            found["accuracy"] = self._share(rows, per_character=False)
            found["accuracy_per_character"] = self._share(rows, per_character=True)
        elif greedy is not None:
            found["accuracy"] = sum(greedy) / len(greedy)
        return found

    def _share(self, rows: list[list[float]], per_character: bool) -> float:
        hits = 0
        for row, question in zip(rows, self.questions, strict=True):
            lengths = question.characters if per_character else [1] * len(row)
            scaled = [value / length for value, length in zip(row, lengths, strict=True)]
            hits += scaled.index(max(scaled)) == question.answer
        return hits / len(rows)


def read_task(path: Path, tokenizer: Tokenizer, start: int | None = None) -> Task:
    """A task's file; its name is the file's.

    Args:
        start: the token before an empty prompt, end-of-document for instance; None: a prompt must have tokens.

    Raises:
        UserError: where the file cannot be read, a line is no question, has no right answer or no tokens, two lines
            share an ``id``, or the kinds are mixed.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read the task {path}: {error.strerror}") from None
    questions: list[Question] = []
    ids: dict[str, int] = {}
    kinds: set[bool] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        facts = _facts(line, place)
        name = facts.get("id")
        if name is not None and ids.setdefault(str(name), number) != number:
            raise UserError(f"{place}: id {name!r} is that of line {ids[str(name)]} too; give each its own")
        kinds.add("target" in facts)
        questions.append(_question(facts, tokenizer, start, place))
    if not questions:
        raise UserError(f"{path} holds no questions")
    if len(kinds) > 1:
        raise UserError(f"{path} mixes multiple choice and cloze; make two files of it")
    return Task(path.stem, questions, cloze=kinds.pop())


def split_ids(tokenizer: Tokenizer, context: str, continuation: str, start: int | None) -> Pair:
    """Both as ids, as they are tokenized together; spaces that end the context belong to the continuation.

    An empty context is the token ``start``.
    """
    bare = context.rstrip()
    continuation, context = context[len(bare) :] + continuation, bare
    first = tokenizer.encode(context).tolist() if context else []
    if not first:
        whole = tokenizer.encode(context + continuation).tolist()
        return Pair([] if start is None else [start], whole)
    return Pair(first, tokenizer.encode(context + continuation).tolist()[len(first) :])


def parts(pair: Pair, window: Window, causal: bool = False) -> Iterator[Part]:
    """The forward passes that predict a continuation, as the model that writes it would.

    Args:
        causal: the same windows with no R: what the mask gives is the difference.
    """
    text, known = [*pair.context, *pair.continuation], len(pair.context)
    while known < len(text):
        begun, room = window.opening(known)
        scored = min(room, len(text) - known)
        # The last token is predicted, not read.
        yield Part(
            text[known - begun : known + scored], 0 if causal else min(window.recent, begun - 1), scored
        )
        known += scored


def _facts(line: bytes, place: str) -> dict[str, Any]:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON: {error}") from None
    known = isinstance(facts, dict) and isinstance(facts.get("prompt"), str)
    if not known or ("choices" in facts) == ("target" in facts):
        raise UserError(
            f'{place}: a question is {{"prompt": text, "choices": [text, ..], "answer": number}} or '
            '{"prompt": text, "target": text}'
        )
    return dict(facts)


def _question(facts: dict[str, Any], tokenizer: Tokenizer, start: int | None, place: str) -> Question:
    texts = facts.get("choices", [facts.get("target")])
    if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
        raise UserError(f"{place}: choices and target must be texts that are not empty; given {texts!r}")
    answer = facts["answer"] if "choices" in facts and "answer" in facts else None
    if "target" in facts:
        answer = 0
    if type(answer) is not int or not 0 <= answer < len(texts):
        raise UserError(
            f"{place}: no right answer: the key answer is {answer!r}; it must be the number of a choice, "
            f"0 to {len(texts) - 1}"
        )
    if len(set(texts)) < len(texts) or ("choices" in facts and len(texts) < 2):
        raise UserError(f"{place}: choices must be two or more, and differ; given {texts!r}")
    try:
        pairs = [split_ids(tokenizer, facts["prompt"], text, start) for text in texts]
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    for pair, text in zip(pairs, texts, strict=True):
        if not pair.context:
            raise UserError(f"{place}: the prompt has no tokens, and this tokenizer no token to start with")
        if not pair.continuation:
            raise UserError(
                f"{place}: {text!r} adds no token to the prompt; the choice must be a text of its own"
            )
    return Question(pairs, [len(text) for text in texts], answer)
