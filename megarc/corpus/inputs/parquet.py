"""Parquet files: a row is a document. Only this file and `arrow.py` know pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megarc.corpus.inputs.byte_range import Block, Span
from megarc.corpus.inputs.document_fields import BadLineError, Choice
from megarc.errors import UserError
from megarc.object_store import StoredFile

if TYPE_CHECKING:
    from megarc.corpus.inputs.find_files import Input


def row_groups(path: Path | StoredFile) -> list[int]:
    """Rows of each row group."""
    with _opened(path, str(path)) as file:
        metadata = file.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def read_rows(file: Input, span: Span, choice: Choice) -> Iterator[Block]:
    """The rows of the span's row groups; a row's offset is its number in the file.

    Raises:
        UserError: where pyarrow is absent, the file damaged, or a column of ``choice`` none of strings.
    """
    from megarc.corpus.inputs.decompress import open_stream

    source: Any = file.path
    if file.compression:
        with open_stream(file) as stream:
            source = pyarrow_for(file.name).BufferReader(stream.read())
    with _opened(source, file.name) as table:
        check_columns(table.schema_arrow, choice, file.name)
        groups = range(*span.groups) if span.groups else range(table.metadata.num_row_groups)
        yield from documents_of(_batches(table, groups, choice.columns, file.name), span.offset, choice)


Rows = list[dict[str, str | None]]


def documents_of(batches: Iterable[Rows], first: int, choice: Choice) -> Iterator[Block]:
    """Rows as documents, in blocks; ``first`` is the number of the first row in the file."""
    block = Block()
    number = 0
    for batch in batches:
        for row in batch:
            empty = [column for column, text in row.items() if text is None]
            try:
                if empty:
                    raise BadLineError(f"the column '{empty[0]}' is null")
                block.take(*choice.pick(row), first + number)
            except BadLineError as error:
                block.reject(number, first + number, str(error))
            number += 1
            if block.full():
                yield block
                block = Block()
    yield block


def _batches(table: Any, groups: range, columns: list[str], name: str) -> Iterator[Rows]:
    """The columns of some rows at a time, read on this thread (a forked pool of threads would hang)."""
    batches = table.iter_batches(512, row_groups=list(groups), columns=columns, use_threads=False)
    while True:
        try:
            batch = next(batches)
            rows: Rows = batch.to_pylist()
        except StopIteration:
            return
        except (OSError, ValueError, MemoryError) as error:  # ArrowInvalid is a ValueError
            raise UserError(f"{name} is damaged: {error}") from None
        yield rows


def check_columns(schema: Any, choice: Choice, name: str) -> None:
    """
    Raises:
        UserError: where a column of ``choice`` is not there, or none of strings.
    """
    if choice.chat_key is not None:
        raise UserError(f"{name}: chats are read from JSON lines only; write its rows to a .jsonl file")
    for column in choice.columns:
        _check_column(schema, column, name)


def _check_column(schema: Any, column: str, name: str) -> None:
    types = pyarrow_for(name).types
    if column not in schema.names:
        raise UserError(
            f"{name} has no column '{column}' (it has: {', '.join(schema.names)}); see --json-keys"
        )
    kind = schema.field(column).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise UserError(f"{name}: the column '{column}' holds {kind}, not strings")


def _opened(source: Any, name: str) -> Any:
    pyarrow_for(name)
    from pyarrow import parquet

    try:
        opened = source.open("rb") if isinstance(source, StoredFile) else source
        return parquet.ParquetFile(opened, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} is not a parquet file, or it is damaged: {error}") from None


def pyarrow_for(name: str) -> Any:
    """
    Raises:
        UserError: where it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"reading {name} (parquet, arrow) needs: pip install 'megarc[parquet]'") from None
    return pyarrow
