"""One document to a transcript: its pieces are run twice, under different circumstances, and kept where both agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megarc.corpus import Segment, write_marked
from megarc.interpreter.languages import Enduring, Language, Outcome
from megarc.interpreter.languages.base import FIRST, SECOND
from megarc.interpreter.sandbox import Sandbox
from megarc.interpreter.transcripts.code_blocks import find_code
from megarc.interpreter.transcripts.normalise_output import normalised, shortened
from megarc.interpreter.transcripts.output_cache import Cache

VERSION = 1  # of how pieces are run: another one, another cache


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Attributes:
        characters: an output is cut behind so many.
        failures: keep pieces whose output is an error.
        quiet: keep pieces without any output.
    """

    characters: int = 2000
    failures: bool = True
    quiet: bool = True


@dataclass(slots=True)
class Transcript:
    """What became of a document: marked text, and counts of its pieces by (language, what became of them)."""

    marked: str
    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def kept(self) -> int:
        return sum(count for (_, what), count in self.pieces.items() if what in ("kept", "kept, an error"))


def transcribe(
    document: str,
    name: str,
    languages: Mapping[str, Language],
    sandbox: Sandbox,
    cache: Cache,
    settings: Settings,
) -> Transcript:
    """Runs the code of a document, each language in one environment from its beginning to its end.

    Raises:
        UserError: where an interpreter does not start.
    """
    segments = find_code(document, name, languages)
    answers = {
        language: iter(
            _answers([one.text for one in segments if one.language == language], where, sandbox, cache)
        )
        for language, where in languages.items()
    }
    made: list[Segment] = []
    counts: Counter[tuple[str, str]] = Counter()
    for segment in segments:
        if segment.kind == "text":
            made.append(segment)
            continue
        output, what = _judged(*next(answers[segment.language]), settings)
        counts[segment.language, what] += 1
        if output is None:
            made.append(Segment("text", segment.text))
        else:
            made += [segment, Segment("output", output), Segment("text", "\n")]
    return Transcript(write_marked(made), counts)


def _answers(
    pieces: list[str], language: Language, sandbox: Sandbox, cache: Cache
) -> list[tuple[Outcome, Outcome]]:
    """Of each piece what two runs answered. What a piece answers depends on all before it: they are one entry."""
    if not pieces:
        return []
    key: list[Any] = [VERSION, language.identity, sandbox.limits.model_dump(), sandbox.enclosed, pieces]
    found = cache.get(key)
    if found is None:
        runs = []
        for variation in (FIRST, SECOND):
            with Enduring(language, sandbox, variation) as environment:
                runs.append([environment.run(piece) for piece in pieces])
        found = [[[one.status, one.output] for one in pair] for pair in zip(*runs, strict=True)]
        cache.put(key, found)
    return [(_outcome(first), _outcome(second)) for first, second in found]


def _outcome(stored: list[str]) -> Outcome:
    status, output = stored
    return Outcome(output, status)  # type: ignore[arg-type]


def _judged(first: Outcome, second: Outcome, settings: Settings) -> tuple[str | None, str]:
    """The output to be shown, None where the piece stays text; and the word for it in the report."""
    for outcome in (first, second):
        if outcome.status not in ("done", "failed"):
            return None, outcome.status
    if first.status == "failed" and not settings.failures:
        return None, "an error, dropped"
    output = normalised(first.output, second.output)
    if output is None or first.status != second.status:
        return None, "differs between two runs"
    if not output and not settings.quiet:
        return None, "without output, dropped"
    return shortened(output, settings.characters), "kept, an error" if first.status == "failed" else "kept"
