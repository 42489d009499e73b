"""Parquet files: a row is a document. The only file that knows pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megarc.corpus.inputs.span import Block, Span
from megarc.errors import UserError

if TYPE_CHECKING:
    from megarc.corpus.inputs.find import Input


def row_groups(path: Path) -> list[int]:
    """Rows of each row group."""
    with _opened(path, str(path)) as file:
        metadata = file.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def read_rows(file: Input, span: Span, column: str) -> Iterator[Block]:
    """The rows of the span's row groups; a row's offset is its number in the file.

    Raises:
        UserError: where pyarrow is absent, the file damaged, or ``column`` no column of strings.
    """
    from megarc.corpus.inputs.streams import open_stream

    source: Any = file.path
    if file.compression:
        with open_stream(file) as stream:
            source = _pyarrow().BufferReader(stream.read())
    block = Block()
    number = 0
    with _opened(source, file.name) as table:
        _check_column(table.schema_arrow, column, file.name)
        groups = range(*span.groups) if span.groups else range(table.metadata.num_row_groups)
        for batch in _batches(table, groups, column, file.name):
            for text in batch:
                if text is None:
                    block.reject(number, span.offset + number, f"the column '{column}' is null")
                else:
                    block.take(text, span.offset + number)
                number += 1
                if block.full():
                    yield block
                    block = Block()
    yield block


def _batches(table: Any, groups: range, column: str, name: str) -> Iterator[list[str | None]]:
    """Texts of some rows at a time, read on this thread (a forked pool of threads would hang)."""
    batches = table.iter_batches(512, row_groups=list(groups), columns=[column], use_threads=False)
    while True:
        try:
            batch = next(batches)
            texts: list[str | None] = batch.column(0).to_pylist()
        except StopIteration:
            return
        except (OSError, ValueError, MemoryError) as error:  # ArrowInvalid is a ValueError
            raise UserError(f"{name} is damaged: {error}") from None
        yield texts


def _check_column(schema: Any, column: str, name: str) -> None:
    types = _pyarrow().types
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
    _pyarrow()
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(source, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} is no parquet file, or a damaged one: {error}") from None


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError("reading parquet files needs: pip install 'megarc[parquet]'") from None
    return pyarrow
