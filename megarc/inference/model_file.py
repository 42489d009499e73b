"""A trained model as one safetensors file and a config.json, and back.

Parameters come one at a time and are written at once: memory for one of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megarc.atomic_write import written_atomically
from megarc.errors import UserError
from megarc.inference.export_layouts import Layout, Pieces, describe, pieces_of, read_description
from megarc.model import ModelConfig, Transformer, as_standard, record_of
from megarc.window import Window

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_TENSORS, _CONFIG = "model.safetensors", "config.json"


def export(
    parameters: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    window: Window,
    folder: Path,
    *,
    layout: Layout = "megarc",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes ``folder/model.safetensors`` and ``folder/config.json``, each whole or not at all.

    Args:
        parameters: canonical names and full values, 1-D, in any order.
        layout: ``huggingface`` is LlamaForCausalLM's, or Qwen3ForCausalLM's with ``qk_norm``; its
            config.json says the window, and that an [R | C] model under a causal mask is another. The
            scales of muP and CompleteP go into the weights: what is written is a standard model.
        dtype: float32 or bfloat16.

    Raises:
        UserError: where the layout cannot hold the model, a parameter is missing, or nothing can be written.
    """
    if layout == "huggingface":
        config, fold = as_standard(config)
        parameters = ((name, fold(name, values)) for name, values in parameters)
    pieces = pieces_of(layout, config)
    facts = json.dumps(describe(layout, config, window, dtype), indent=2) + "\n"
    with written_atomically(folder / _TENSORS) as file:
        _write_tensors(file, parameters, config, pieces, dtype)
    with written_atomically(folder / _CONFIG) as file:
        file.write(facts.encode())


def load_exported(folder: Path) -> tuple[Transformer, Window]:
    """A model that ``export`` wrote, in either layout, float32 and in evaluation mode; and its window.

    Raises:
        UserError: where ``folder`` holds none, or not all of it.
    """
    place = folder / _CONFIG
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        layout, config, window = read_description(facts, str(place))
        model = Transformer(config)
        pieces = pieces_of(layout, config)
        with torch.no_grad(), safe_open(folder / _TENSORS, framework="pt") as file:
            for own, parameter in model.named_parameters():
                parameter.zero_()  # what pads the vocabulary may not be in the file
                for name, piece in pieces(own, parameter):
                    piece.copy_(file.get_tensor(name))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no exported model: {error}") from None
    return model.eval(), window


def _write_tensors(
    file: BinaryIO,
    parameters: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    pieces: Pieces,
    dtype: torch.dtype,
) -> None:
    with torch.device("meta"):  # names and shapes, without memory
        shapes = {name: record_of(value).shape for name, value in Transformer(config).named_parameters()}
    described = [
        (name, list(piece.shape))
        for own, shape in shapes.items()
        for name, piece in pieces(own, torch.empty(shape, device="meta"))
    ]
    offsets = _write_header(file, described, dtype)
    for own, values in parameters:
        if own not in shapes:
            raise UserError(f"the checkpoint has {own}, which the model has not (or has it twice)")
        for name, piece in pieces(own, values.view(shapes.pop(own))):
            file.seek(offsets[name])
            file.write(piece.to(dtype).contiguous().view(torch.uint8).numpy().data)
    if shapes:
        raise UserError(f"the checkpoint has no {', '.join(list(shapes)[:4])}; it is of another model")


def _write_header(
    file: BinaryIO, described: list[tuple[str, list[int]]], dtype: torch.dtype
) -> dict[str, int]:
    """Writes safetensors' header and makes room for the data; where each tensor begins in the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in described:
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    data = 8 + len(encoded)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    file.truncate(data + end)
    return {name: data + header[name]["data_offsets"][0] for name, _ in described}
