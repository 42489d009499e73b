"""A corpus for people: counts, lengths, documents and windows in words and colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megarc.corpus.indexed.corpus import IndexedCorpus
from megarc.corpus.indexed.manifest import load_manifest
from megarc.corpus.tokenizer import Tokenizer
from megarc.errors import UserError
from megarc.progress import human, human_bytes
from megarc.window import Window

if TYPE_CHECKING:
    from rich.text import Text

R_STYLE, CONTEXT_STYLE, LOSS_STYLE, TARGET_STYLE = (
    "white on blue",
    "black on yellow",
    "black on green",
    "reverse",
)


def facts_of(corpus: IndexedCorpus) -> list[str]:
    """What there is, a line each."""
    manifest = load_manifest(corpus.prefix)
    lengths = document_lengths(corpus)
    lines = [
        f"{corpus.name}: {human(len(corpus.tokens))} tokens ({corpus.dtype.name}) "
        f"in {corpus.document_count} documents"
    ]
    if len(lengths):
        points = (0, 5, 25, 50, 75, 95, 100)
        values = np.percentile(lengths, points).astype(int)
        shown = ", ".join(f"{point} %: {value}" for point, value in zip(points, values, strict=True))
        lines.append(f"tokens a document: mean {lengths.mean():.1f}; {shown}")
    if manifest is None:
        return [*lines, f"no manifest; known by its cheap digest {corpus.digest[:16]}..."]
    lines.append(f"content {manifest.content_digest[:16]}...")
    if manifest.text_bytes is not None and manifest.tokens:
        size = manifest.text_bytes
        lines.append(f"{human_bytes(size)} of text, {size / manifest.tokens:.2f} bytes a token")
    if manifest.tokenizer:
        kind, size = manifest.tokenizer.kind, manifest.tokenizer.vocabulary_size
        lines.append(f"tokenizer: {kind}, {size} tokens, {manifest.tokenizer.digest[:16]}...")
    rejects = sum(file.rejects for file in manifest.inputs)
    lines.append(f"from {len(manifest.inputs)} files, {rejects} bad lines")
    lines += [f"left out: {count} documents, {reason}" for reason, count in manifest.dropped.items()]
    return lines


def document_lengths(corpus: IndexedCorpus) -> Any:
    """Tokens of each document, i64 ``[documents]``."""
    return np.diff(np.append(corpus.documents, len(corpus.tokens)))


def plot_lengths(corpus: IndexedCorpus, path: Path) -> None:
    """A histogram of the documents' lengths: how many, and how many tokens lie in them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths = document_lengths(corpus)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        raise UserError(f"{corpus.name} has no document with a token in it")
    bins = np.geomspace(1, lengths.max() + 1, 50)
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.hist(lengths, bins, weights=np.full(len(lengths), 1 / len(lengths)), alpha=0.6, label="documents")
    axes.hist(lengths, bins, weights=lengths / lengths.sum(), alpha=0.6, label="tokens")
    axes.set(xscale="log", xlabel="tokens a document", ylabel="share", title=Path(corpus.name).name)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def window_in_colours(corpus: IndexedCorpus, window: Window, number: int, tokenizer: Tokenizer) -> Text:
    """Window ``number``, decoded: its rows of R, of C without and with loss, and the last target.

    Raises:
        UserError: where the corpus has no such window.
    """
    from rich.text import Text

    starts = window.starts(len(corpus.tokens))
    if not 0 <= number < len(starts):
        count = f"{len(starts)} windows {window}, numbered from 0" if starts else f"no window {window}"
        raise UserError(f"{corpus.name} ({len(corpus.tokens)} tokens) has {count}; there is no {number}")
    tokens = corpus.tokens[starts[number] : starts[number] + window.tokens]
    loss = window.loss_rows
    parts = [
        (slice(0, window.recent), R_STYLE),
        (slice(window.recent, loss.start), CONTEXT_STYLE),
        (loss, LOSS_STYLE),
        (slice(window.rows, window.tokens), TARGET_STYLE),
    ]
    text = Text()
    for rows, style in parts:
        text.append(tokenizer.decode(tokens[rows]).replace("\n", "⏎\n"), style)
    return text


def legend(window: Window) -> Text:
    """What the colours say."""
    from rich.text import Text

    first = window.loss_rows.start
    text = Text(f"{window}: ")
    if window.recent:
        text.append(f" R, rows 0-{window.recent - 1} ", R_STYLE)
    if first > window.recent:
        text.append(f" C without loss, rows {window.recent}-{first - 1} ", CONTEXT_STYLE)
    text.append(f" C with loss, rows {first}-{window.rows - 1} ", LOSS_STYLE)
    text.append(" the last row's target ", TARGET_STYLE)
    return text
