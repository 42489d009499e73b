"""A random sample of documents, the same one every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from megarc.corpus.inputs.document_fields import Choice
from megarc.corpus.inputs.documents import read_span
from megarc.corpus.inputs.find_files import Input, find_inputs, in_words
from megarc.corpus.inputs.split_files import cut
from megarc.corpus.packing.document_keys import order_keys
from megarc.corpus.packing.shard import RECORD
from megarc.progress import human, progress

_EXPANSION = 4.0  # of compressed text, roughly


def sampled_texts(
    named: Sequence[str],
    exclude: Sequence[str] = (),
    format: str | None = None,
    *,
    json_key: str = "text",
    sample_bytes: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """About ``sample_bytes`` of the inputs' text: each document is drawn by its place, bad lines are skipped.

    Raises:
        UserError: where the inputs cannot be read.
    """
    inputs, passed = find_inputs(named, exclude, format)
    if passed:
        say(f"skipped: {in_words(passed)}")
    size = sum(file.bytes * (_EXPANSION if file.compression else 1.0) for file in inputs)
    share = min(1.0, sample_bytes / max(size, 1.0))
    if share < 1:
        say(f"training on {100 * share:.2g} % of the documents")
    return _drawn(inputs, json_key, share, seed, say)


def _drawn(
    inputs: list[Input], json_key: str, share: float, seed: int, say: Callable[[str], None]
) -> Iterator[str]:
    read = skipped = 0
    spans = [span for piece in cut(inputs) for span in piece]
    sized = all(file.sized for file in inputs)
    size = sum(span.stop - span.start for span in spans) if sized else None
    with progress("reading", size, unit="B") as bar:
        for span in spans:
            for block in read_span(inputs[span.input], span, Choice(json_key)):
                records: npt.NDArray[Any] = np.zeros(len(block.texts), RECORD)
                records["input"], records["offset"] = span.input, block.offsets
                chosen = order_keys(records, seed) / 2**64 < share
                skipped += len(block.rejects)
                for text in (text for text, taken in zip(block.texts, chosen, strict=True) if taken):
                    read += len(text)
                    yield text
            bar.advance(span.stop - span.start)
    say(f"read {human(read)} characters" + (f"; {skipped} bad lines skipped" if skipped else ""))
