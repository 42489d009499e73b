"""Prompts in a file of JSON lines, and their answers in another, which a killed job goes on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from megarc.atomic_write import cannot_write, sync, written_atomically
from megarc.corpus import Tokenizer
from megarc.errors import UserError

Name: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A line of the file: its name, its text as ids, and how many tokens at most shall follow."""

    name: Name
    text: str
    ids: list[int]
    tokens: int


def read_prompts(path: Path, tokenizer: Tokenizer, tokens: int) -> list[Prompt]:
    """Every line ``{"prompt": text}``, with the keys ``id`` (the line's number, from 0, unless given) and ``tokens``.

    Raises:
        UserError: where the file cannot be read, a line is none, a prompt has no tokens, or two share an id.
    """
    found: list[Prompt] = []
    lines: dict[Name, int] = {}
    for number, line in _lines(path):
        place, facts = f"{path}, line {number}", _facts(line, f"{path}, line {number}")
        name, count = facts.get("id", len(found)), facts.get("tokens", tokens)
        if not _is_name(name):
            raise UserError(
                f"{place}: id is {name!r}; it must be a text or a whole number of at most 64 bits"
            )
        if name in lines:
            raise UserError(
                f"{place}: id {name!r} is that of line {lines[name]} too; give each prompt its own"
            )
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"{place}: tokens is {count!r}; it must be a whole number of 1 or more")
        ids = tokenizer.encode(facts["prompt"]).tolist()
        if not ids:
            raise UserError(f"{place}: the prompt {facts['prompt']!r} has no tokens; give some text")
        lines[name] = number
        found.append(Prompt(name, facts["prompt"], ids, count))
    if not found:
        raise UserError(f"{path} holds no prompts")
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the prompts from {path}: {error.strerror}") from None
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield number, line


def _is_name(name: Any) -> bool:
    """Whether an answer can be written under it."""
    if isinstance(name, bool) or not isinstance(name, str | int):
        return False
    try:
        orjson.dumps(name)
    except orjson.JSONEncodeError:  # a lone surrogate, or a number beyond 64 bits
        return False
    return True


def _facts(line: bytes, place: str) -> dict[str, Any]:
    try:
        facts = json.loads(line)
        facts["prompt"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        facts = {"prompt": ""}
    if not facts["prompt"]:
        raise UserError(f'{place}: not a prompt; a line is {{"prompt": "some text"}}')
    return dict(facts)


class Answers:
    """A file of answers that is there whole or not at all; until then its lines stand in ``FILE.partial``.

    Args:
        job: everything that the answers depend on; the partial file of another job is refused.

    Raises:
        UserError: where the file is there already, or the partial file is another job's.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        if path.exists():
            raise UserError(f"{path} is there already; remove it, or give another file")
        self.path, self._partial, self._job = path, Path(f"{path}.partial"), dict(job)
        self.done: dict[Name, dict[str, Any]] = {}
        self._kept = 0  # bytes of whole lines
        if self._partial.exists():
            self._take_over()

    def _take_over(self) -> None:
        """The whole lines of a killed job; a half one is cut off."""
        try:
            content = self._partial.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self._partial}: {error.strerror}; remove it") from None
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        for number, line in enumerate(lines):
            try:
                facts = json.loads(line)
            except (ValueError, RecursionError):
                break  # of a crash of the machine: what follows is written again
            if number == 0 and facts != {"job": self._job}:
                theirs = facts.get("job") if isinstance(facts, dict) else None
                theirs = theirs if isinstance(theirs, dict) else {}
                differ = [key for key, value in self._job.items() if theirs.get(key) != value]
                raise UserError(
                    f"{self._partial} is of another job (other {', '.join(differ) or 'keys'}); give the same "
                    "options to go on with it, or remove it"
                )
            if number and not (isinstance(facts, dict) and _is_name(facts.get("id"))):
                raise UserError(f"{self._partial}, line {number + 1} is not an answer; remove the file")
            if number:
                self.done[facts["id"]] = facts
            self._kept += len(line)

    @contextmanager
    def writing(self) -> Iterator[_Lines]:
        """Appends lines; the file takes its name only with ``finish``."""
        try:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            with self._partial.open("ab") as file:
                file.truncate(self._kept)
                lines = _Lines(file, self.done)
                if not self._kept:
                    lines.write({"job": self._job})
                yield lines
                sync(file)
        except OSError as error:
            raise cannot_write(self._partial, error) from error

    def finish(self, names: Sequence[Name]) -> None:
        """All answers, in the order of the prompts, under the file's name."""
        with written_atomically(Path(f"{self.path}.sorted")) as file:
            file.writelines(orjson.dumps(self.done[name]) + b"\n" for name in names)
        Path(f"{self.path}.sorted").replace(self.path)
        self._partial.unlink()


class _Lines:
    def __init__(self, file: Any, done: dict[Name, dict[str, Any]]) -> None:
        self._file, self._done = file, done

    def write(self, facts: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(facts) + b"\n")
        self._file.flush()

    def add(self, answer: dict[str, Any]) -> None:
        """An answer, under its ``id``."""
        self.write(answer)
        self._done[answer["id"]] = answer


def digest(*parts: str) -> str:
    """Of what an answer depends on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
