"""Arrow streams, as ``datasets.Dataset.save_to_disk`` writes them: a row is a document.

The files are mapped, so that passing over a batch of rows reads its header alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megarc.corpus.inputs.byte_range import Block, Span
from megarc.corpus.inputs.document_fields import Choice
from megarc.corpus.inputs.parquet import Rows, check_columns, documents_of, pyarrow_for
from megarc.errors import UserError
from megarc.object_store import StoredFile

if TYPE_CHECKING:
    from megarc.corpus.inputs.find_files import Input

_ROWS = 512  # that become Python objects at once


def batch_rows(path: Path | StoredFile) -> list[int]:
    """Rows of each batch of a file."""
    with _opened(path, str(path)) as (_, batches):
        return [batch.num_rows for batch in batches]


def read_batches(file: Input, span: Span, choice: Choice) -> Iterator[Block]:
    """The rows of the span's batches; a row's offset is its number in the file.

    Raises:
        UserError: where pyarrow is absent, the file damaged or compressed as a whole, or a column of ``choice`` none
            of strings.
    """
    if file.compression:
        raise UserError(
            f"{file.name}: compressed arrow files ({file.compression}) are not supported; decompress it"
        )
    with _opened(file.path, file.name) as (schema, batches):
        check_columns(schema, choice, file.name)
        yield from documents_of(_rows(batches, span, choice.columns), span.offset, choice)


def _rows(batches: Iterator[Any], span: Span, columns: list[str]) -> Iterator[Rows]:
    for number, batch in enumerate(batches):
        if span.groups is not None and number >= span.groups[1]:
            return
        if span.groups is None or number >= span.groups[0]:
            some = batch.select(columns)
            for first in range(0, some.num_rows, _ROWS):
                yield some.slice(first, _ROWS).to_pylist()


@contextmanager
def _opened(path: Path | StoredFile, name: str) -> Iterator[tuple[Any, Iterator[Any]]]:
    """``(schema, batches)`` of a mapped file."""
    pyarrow = pyarrow_for(name)
    try:
        with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as reader:
            yield reader.schema, iter(reader)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise UserError(
            f"{name} is not an arrow stream as datasets.save_to_disk writes it, or it is damaged: {error}"
        ) from None
