"""A trained model as safetensors and a config.json in a folder, and back.

Parameters come one at a time and are written at once: memory for one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from megarc.atomic_write import written_atomically
from megarc.errors import UserError
from megarc.inference.export_layouts import Layout, Written, laid_out, read_description
from megarc.inference.shard_files import INDEX, Shard, ShardFiles, planned
from megarc.model import ModelConfig, Transformer, as_standard, named_values, record_of
from megarc.window import Window

_CONFIG = "config.json"
LARGEST_SHARD = 5_000_000_000  # bytes of a file, as transformers writes them


def export(
    parameters: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    window: Window,
    folder: Path,
    *,
    layout: Layout = "megarc",
    dtype: torch.dtype = torch.float32,
    end: int | None = None,
    largest: int | None = None,
) -> None:
    """Writes the model's files into ``folder``, each whole or not at all, config.json the last.

    Args:
        parameters: canonical names and full values, 1-D, in any order.
        layout: ``huggingface`` is the one of a class of transformers, which the model's keys choose; its
            config.json says the window, and that an [R | C] model under a causal mask is another. The scales of
            muP and CompleteP go into the weights: what is written is a standard model.
            Of nested widths the widest is written.
        dtype: float32 or bfloat16.
        end: the token that ends a document.
        largest: bytes of tensors in one file; more go into several, with an index. None: 5 GB in Hugging Face's
            layout, one file in ours.

    Raises:
        UserError: where the layout cannot hold the model, a parameter is missing, or nothing can be written.
    """
    if layout == "huggingface":
        config, fold = as_standard(config)
        # all its neurons together are a plain feed-forward
        config = config.model_copy(update={"nested": None})
        parameters = ((name, fold(name, values)) for name, values in parameters)
    written = laid_out(layout, config, window, dtype, end)
    if largest is None and layout == "huggingface":
        largest = LARGEST_SHARD
    with torch.device("meta"):  # names and shapes, without memory
        shapes = {name: record_of(value).shape for name, value in named_values(Transformer(config))}
    described = [
        (name, tuple(piece.shape))
        for own, shape in shapes.items()
        for name, piece in written.pieces(own, torch.empty(shape, device="meta"))
    ]
    shards = planned([*described, *written.zeros], dtype, largest)
    with ExitStack() as stack:
        opened = {
            shard.name: stack.enter_context(written_atomically(folder / shard.name)) for shard in shards
        }
        files = [(shard, opened[shard.name]) for shard in shards]
        places = {
            name: (file, offset) for shard, file in files for name, offset in shard.begin(file, dtype).items()
        }
        for own, values in parameters:
            if own not in shapes:
                raise UserError(f"the checkpoint has {own}, which the model does not have (or has twice)")
            for name, piece in written.pieces(own, values.view(shapes.pop(own))):
                file, offset = places[name]
                file.seek(offset)
                file.write(piece.to(dtype).contiguous().view(torch.uint8).numpy().data)
        if shapes:
            raise UserError(f"the checkpoint has no {', '.join(list(shapes)[:4])}; it is of another model")
    _write_small_files(folder, written, shards)


def load_exported(folder: Path) -> tuple[Transformer, Window]:
    """A model that ``export`` wrote, in either layout, float32 and in evaluation mode; and its window.

    Raises:
        UserError: where ``folder`` holds none, or not all of it.
    """
    place = folder / _CONFIG
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        pieces, config, window = read_description(facts, str(place))
        model = Transformer(config)
        with torch.no_grad(), ShardFiles(folder) as files:
            for own, parameter in named_values(model):
                parameter.zero_()  # what pads the vocabulary may not be in the file
                for name, piece in pieces(own, parameter):
                    piece.copy_(files.read(name))
    except (
        OSError,
        ValueError,
        AttributeError,
        KeyError,
        TypeError,
        RecursionError,
        SafetensorError,
    ) as error:
        raise UserError(f"{folder} holds no exported model: {error}") from None
    return model.eval(), window


def _write_small_files(folder: Path, written: Written, shards: list[Shard]) -> None:
    files = dict(written.files)
    if len(shards) > 1:
        total = sum(shard.size for shard in shards)
        names = {name: shard.name for shard in shards for name, _ in shard.tensors}
        files = {INDEX: {"metadata": {"total_size": total}, "weight_map": names}, **files}
    for name, content in files.items():
        with written_atomically(folder / name) as file:
            file.write(
                content if isinstance(content, bytes) else (json.dumps(content, indent=2) + "\n").encode()
            )
    current = {shard.name for shard in shards}
    stale = [path for path in folder.glob("model*.safetensors*") if path.name not in current]
    for path in stale:  # of an earlier export into this folder, which had another number of files
        if path.name != INDEX or len(shards) == 1:
            path.unlink()
