"""What a checkpoint's JSON must be before anything else is done with it: it may come from anybody.

A checksum shows damage, not intent: whoever writes a manifest writes its checksum too. So names are plain names of
this folder, numbers have bounds, and no fragment claims more elements than its file has bytes for.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from megarc.parallel import Box
from megarc.train.run_position import Standing

_BYTES = 4  # of an element
_Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_Name = Annotated[str, StringConstraints(pattern=r"^rank-[0-9]{5,9}\.(json|safetensors)$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _File(_Strict):
    size: _Count
    sha256: _Digest


class _Course(_Strict):
    start: _Count
    begin: _Count


class _Manifest(_Strict):
    format: int
    files: dict[_Name, _File]
    standing: Standing
    config: dict[str, Any]
    working_folder: str | None = None
    course: _Course | None = None


class Entry(_Strict):
    """A fragment: its parameter's name and full shape, and the boxes of it that it holds."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=1, lt=1 << 48)]], Field(min_length=1, max_length=2)]
    boxes: list[tuple[int, int, int, int]]

    def placed(self) -> list[Box]:
        return [Box(*box) for box in self.boxes]


class RankFile(_Strict):
    """``rank-00017.json``."""

    tensors: _Name
    fragments: list[Entry]


def manifest_problem(content: bytes) -> str | None:
    """What is wrong with a manifest; None: nothing."""
    try:
        found = _Manifest.model_validate_json(content)
    except ValidationError as error:
        return _first(error)
    unknown = set(orjson.loads(content)["standing"]) - set(Standing.__dataclass_fields__)
    if unknown:
        return f"standing.{min(unknown)}: unknown"
    standing = found.standing
    if min(standing.step, standing.samples, standing.without_update) < 0 or standing.step >= 1 << 62:
        return "standing: a count is out of range"
    if any(len(one) != 2 for one in standing.skipped):
        return "standing.skipped: a range has a first and a last sample"
    return None


def rank_file(content: bytes, sizes: dict[str, int]) -> RankFile:
    """A rank's JSON.

    Args:
        sizes: bytes of the checkpoint's files, by name.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        found = RankFile.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if found.tensors not in sizes:
        raise ValueError(f"tensors: the manifest does not list {found.tensors}")
    elements = 0
    for entry in found.fragments:
        rows, columns = entry.shape if len(entry.shape) == 2 else (1, entry.shape[0])
        for box in entry.placed():
            if not (0 <= box.top < box.bottom <= rows and 0 <= box.left < box.right <= columns):
                raise ValueError(f"{entry.name}: the box {list(box)} is not inside of {entry.shape}")
            elements += box.size
    if elements * _BYTES > sizes[found.tensors]:
        raise ValueError(f"{elements} elements are said to lie in {sizes[found.tensors]} bytes")
    return found


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}"
