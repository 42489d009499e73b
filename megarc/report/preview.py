"""What the model sees: samples as text, with R, C and the predicted tokens told apart.

A row holds a token and predicts the next one. So a token is *read* where its row is R or C, and *predicted* where the
row before it bears loss: one token can be both.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from rich.text import Text

from megarc.data import Batch, LocatedSource, Stream
from megarc.window import Window

Decode = Callable[[Sequence[int]], str]

_RECENT, _CONTEXT, _PREDICTED, _NEXT = "R", "C", "predicted", "next"
_STYLES = {
    _RECENT: "cyan",
    _CONTEXT: "dim",
    _PREDICTED: "bold green",
    _NEXT: "dim italic",
}
_COLOURS = {
    _RECENT: "background:#d5ecf5",
    _CONTEXT: "background:#eee",
    _PREDICTED: "background:#d4f0d0",
    _NEXT: "color:#999",
}
_MEANINGS = {
    _RECENT: "R: rows see each other both ways",
    _CONTEXT: "C without loss: context",
    _PREDICTED: "predicted: the row before it bears loss",
    _NEXT: "read by no row",
}


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tokens of one part: its text, the part, and whether a document begins with the first of them."""

    text: str
    part: str
    begins: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample: which it is, where it comes from, how many tokens each part has, and its text in runs."""

    sample: int
    source: str
    where: str
    counts: dict[str, int]
    runs: list[Run]

    @property
    def head(self) -> str:
        """One line."""
        counts = ", ".join(f"{count} {part}" for part, count in self.counts.items() if count)
        return f"sample {self.sample}: {self.source}, {self.where} ({counts})"


def shown(stream: Stream, samples: Iterable[int], decode: Decode) -> list[Shown]:
    """The samples ``samples`` of a stream's order."""
    found = []
    for sample in samples:
        source, number = stream.origin(sample)
        where = source.located(number) if isinstance(source, LocatedSource) else f"its sample {number}"
        batch = stream.read(sample, 1)
        parts = parts_of(batch, stream.shapes.piece(sample).window)
        counts = {name: parts.count(name) for name in (_RECENT, _CONTEXT, _PREDICTED)}
        found.append(Shown(sample, source.facts.name, where, counts, _runs(batch, parts, decode)))
    return found


def parts_of(batch: Batch, window: Window) -> list[str]:
    """Which part each token of a batch's one sample belongs to, of n + 1 tokens."""
    rows = window.rows
    ends = np.full(rows, batch.recent[0]) if batch.recent_end is None else batch.recent_end[0]
    bears: npt.NDArray[np.bool_] = np.zeros(rows, dtype=np.bool_)
    if batch.weights is None:
        bears[window.loss_rows.start :] = True
    else:
        own = batch.weights[0] > 0
        bears[-len(own) :] = own
    found = []
    for token in range(rows + 1):
        if token and bears[token - 1]:
            found.append(_PREDICTED)
        elif token == rows:
            found.append(_NEXT)
        else:
            found.append(_RECENT if token < ends[token] else _CONTEXT)
    return found


def _runs(batch: Batch, parts: Sequence[str], decode: Decode) -> list[Run]:
    tokens = batch.tokens[0].tolist()
    documents = None if batch.documents is None else batch.documents[0].tolist()
    begins = [False] * len(tokens)
    if documents is not None:
        for row in range(1, len(documents)):
            begins[row] = documents[row] != documents[row - 1]
    hidden = [False] * len(tokens)
    if batch.inputs is not None:
        hidden[: len(batch.inputs[0])] = (batch.inputs[0] != batch.tokens[0, :-1]).tolist()
    group = np.cumsum(begins).tolist()
    found, before = [], 0
    for (part, number, gone), places in groupby(
        range(len(tokens)), key=lambda place: (parts[place], group[place], hidden[place])
    ):
        text = decode([tokens[place] for place in places])
        found.append(Run(text, part, number != before, gone))
        before = number
    return found


def as_text(samples: Sequence[Shown], stream: Stream, *, marks: bool = False) -> Text:
    """For a terminal.

    Args:
        marks: name each part before its text, for a pipe or a terminal without colours.
    """
    text = Text(f"window {stream.shapes}\n")
    for part, meaning in _MEANINGS.items():
        text.append(f"  {_mark(part) if marks else ''}{meaning}\n", style=_STYLES[part])
    for one in samples:
        text.append(f"\n{one.head}\n", style="bold")
        for run in one.runs:
            if run.begins:
                text.append("\n--- another document ---\n", style="red")
            style = _STYLES[run.part] + (" reverse" if run.hidden else "")
            text.append((_mark(run.part, hidden=run.hidden) if marks else "") + run.text, style=style)
        text.append("\n")
    return text


def _mark(part: str, *, hidden: bool = False) -> str:
    return f"\u00ab{part}{', hidden' if hidden else ''}\u00bb "


def as_html(samples: Sequence[Shown], stream: Stream) -> str:
    """A page that needs no other file."""
    legend = " ".join(
        f'<span style="{_COLOURS[part]}">{html.escape(meaning)}</span>' for part, meaning in _MEANINGS.items()
    )
    body = "".join(_section(one) for one in samples)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Samples</title>'
        "<style>body{font:14px sans-serif;max-width:70em;margin:2em auto}pre{white-space:pre-wrap;line-height:1.5;"
        "border:1px solid #ccc;padding:1em}.document{border-left:3px solid #c33}.hidden{outline:1px dashed #c33}"
        f"</style><h1>Samples of {html.escape(str(stream.shapes))}</h1><p>{legend}</p>{body}</html>\n"
    )


def _section(one: Shown) -> str:
    runs = "".join(
        f'<span class="{"document " * run.begins}{"hidden" * run.hidden}" title="{run.part}" '
        f'style="{_COLOURS[run.part]}">{html.escape(run.text)}</span>'
        for run in one.runs
    )
    return f"<h2>{html.escape(one.head)}</h2><pre>{runs}</pre>"
