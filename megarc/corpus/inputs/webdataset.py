"""Tar files as webdataset writes them: neighbouring files of one key are a sample.

A file's key is its path up to the first dot of its name, its field the rest of the name in lower case. A sample's
element holds each field's text by its name, and the keys of its ``json`` field.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

import orjson

from megarc.corpus.inputs.byte_range import Block
from megarc.corpus.inputs.decompress import open_stream
from megarc.corpus.inputs.document_fields import BadLineError, Choice
from megarc.corpus.inputs.find_files import Input
from megarc.errors import UserError

_ALSO = {"text": "txt"}  # the default key is found in the usual field


def read_samples(file: Input, choice: Choice) -> Iterator[Block]:
    """The samples of a tar file; a sample's offset is its number in it.

    Raises:
        UserError: for a file that is no tar, or is cut short.
    """
    wanted = {*choice.columns, *(_ALSO[name] for name in choice.columns if name in _ALSO), "json"}
    block = Block()
    for number, fields in enumerate(_samples(file, wanted)):
        try:
            block.take(*choice.pick(_element(fields)), number)
        except BadLineError as error:
            block.reject(number, number, str(error))
        if block.full():
            yield block
            block = Block()
    yield block


def _samples(file: Input, wanted: set[str]) -> Iterator[dict[str, bytes]]:
    """The wanted fields of each run of files with one key; images and the like are passed over, unread."""
    current, fields = None, dict[str, bytes]()
    with open_stream(file) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, field = name.partition(".")
                    if not member.isfile() or not stem or not field:
                        continue
                    if (folder, stem) != current:
                        if current is not None:
                            yield fields
                        current, fields = (folder, stem), {}
                    content = tar.extractfile(member) if field.lower() in wanted else None
                    if content is not None:
                        fields[field.lower()] = content.read()
        except tarfile.TarError as error:
            raise UserError(f"{file.name} is not a tar file, or it is damaged: {error}") from None
    if current is not None:
        yield fields


def _element(fields: dict[str, bytes]) -> dict[str, object]:
    element: dict[str, object] = {}
    if "json" in fields:
        try:
            element.update(orjson.loads(fields["json"]))
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise BadLineError(f"the field json is not a JSON object: {error}") from None
    for name, data in fields.items():
        if name != "json":
            try:
                element[name] = data.decode()
            except UnicodeDecodeError as error:
                raise BadLineError(f"the field {name}: bad UTF-8 at byte {error.start}") from None
    for name, field in _ALSO.items():
        if field in element:
            element.setdefault(name, element[field])
    return element
