"""The tensors of a folder in Hugging Face's layout, one parameter of ours at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from megarc.errors import UserError
from megarc.inference.huggingface.read_config import Foreign
from megarc.inference.huggingface.tensor_names import Pieces, pieces_of
from megarc.inference.shard_files import ShardFiles
from megarc.model import Transformer, named_values, record_of

_DTYPES = ("F32", "BF16", "F16")


def read_weights(folder: Path, foreign: Foreign) -> Iterator[tuple[str, list[int], Tensor]]:
    """Canonical names, full shapes and full float32 values, 1-D. Rows that pad the vocabulary are 0.

    Every file and every tensor's shape is looked at before the first is read.

    Raises:
        UserError: where a file or a tensor is missing, of another shape or type, or one is left over.
    """
    files = ShardFiles(folder)
    if foreign.model.layers > len(files.place):  # before so many layers are built
        raise UserError(
            f"{folder}: config.json says {foreign.model.layers} layers, and the files hold {len(files.place)} tensors"
        )
    with torch.device("meta"):
        built = Transformer(foreign.model)
    shapes = {name: record_of(value).shape for name, value in named_values(built)}
    pieces = pieces_of(foreign.family, foreign.model)
    wanted = {
        name: tuple(piece.shape)
        for own, shape in shapes.items()
        for name, piece in pieces(own, torch.empty(shape, device="meta"))
    }
    _check(files, wanted, foreign)
    return _values(files, shapes, pieces)


def _values(
    files: ShardFiles, shapes: dict[str, tuple[int, ...]], pieces: Pieces
) -> Iterator[tuple[str, list[int], Tensor]]:
    with files:
        for own, shape in shapes.items():
            values = torch.zeros(shape)
            for name, piece in pieces(own, values):
                piece.copy_(files.read(name))
            yield own, list(shape), values.view(-1)


def _check(files: ShardFiles, wanted: dict[str, tuple[int, ...]], foreign: Foreign) -> None:
    """Every tensor that is wanted is there in its shape, and none is left over."""
    for name, shape in wanted.items():
        if name not in files.place:
            raise UserError(f"{files.folder} has no tensor {name}, which its config.json asks for")
        found, dtype = files.shape(name)
        if found != shape:
            raise UserError(f"{files.folder}: {name} is {list(found)}, and config.json says {list(shape)}")
        if dtype not in _DTYPES:
            raise UserError(f"{files.folder}: {name} is of type {dtype}; megarc reads {', '.join(_DTYPES)}")
    for name in sorted(files.place.keys() - wanted.keys()):
        if name.endswith("rotary_emb.inv_freq") or (foreign.model.tied and name == "lm_head.weight"):
            continue  # old files keep them; transformers does not read them either
        if name.endswith("self_attn.o_proj.bias") and not bool(files.read(name).any()):
            continue  # written for a class that has it, where ours has none
        raise UserError(f"{files.folder}: the tensor {name} has no place in megarc's layers")
