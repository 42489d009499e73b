"""A trained model as one safetensors file and a config.json, in our layout or Hugging Face's.

Parameters come one at a time and are written at once: memory for one of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import megarc
from megarc.config import build, to_dict
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, record_of
from megarc.window import Window

Layout = Literal["megarc", "huggingface"]
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_FILE = "model.safetensors"


def export(
    parameters: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    window: Window,
    folder: Path,
    *,
    layout: Layout = "megarc",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes ``folder/model.safetensors`` and ``folder/config.json``.

    Args:
        parameters: canonical names and full values, 1-D, in any order.
        layout: ``huggingface`` is LlamaForCausalLM's; its config.json says the window,
            and served as a plain causal model an [R | C] model is another model.
        dtype: float32 or bfloat16.

    Raises:
        UserError: where the layout cannot hold the model, or the folder cannot be written.
    """
    shapes = {name: list(record_of(value).shape) for name, value in _skeleton(config).named_parameters()}
    if layout == "huggingface":
        _check_llama(config)
    pieces_of = _llama_pieces(config) if layout == "huggingface" else _own_pieces
    described = [
        (name, list(piece.shape))
        for own, shape in shapes.items()
        for name, piece in pieces_of(own, torch.empty(shape, device="meta"))
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{_FILE}.part"
        offsets = _write_header(beside, described, dtype)
        with beside.open("r+b") as file:
            for own, values in parameters:
                for name, piece in pieces_of(own, values.view(shapes[own])):
                    file.seek(offsets.pop(name))
                    file.write(piece.to(dtype).contiguous().view(torch.uint8).numpy().tobytes())
        if offsets:
            raise UserError(f"the checkpoint has no {', '.join(sorted(offsets)[:4])}; it is of another model")
        beside.replace(folder / _FILE)
        facts = (
            _llama_config(config, window, dtype) if layout == "huggingface" else _own_config(config, window)
        )
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"the model cannot be written to {folder}: {error}") from None


def load_exported(folder: Path) -> tuple[Transformer, Window]:
    """A model in our layout, in evaluation mode, and its window.

    Raises:
        UserError: where ``folder`` holds none.
    """
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / _FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no exported model: {error}") from None
    if facts.get("format") != "megarc model":
        raise UserError(f"{folder} is in another layout than megarc's; export it again with --layout megarc")
    model = Transformer(build(ModelConfig, facts["model"], str(folder / "config.json")))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model.eval(), Window(**facts["window"])


Pieces = Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]


def _own_pieces(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, values


def _llama_pieces(config: ModelConfig) -> Pieces:
    """Llama's names; our pairs (keys above values, gate above up) cut in two, padding ids left out."""
    outside = {"embedding.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}
    inside = {
        "attention_norm.weight": ("input_layernorm.weight",),
        "attention.query.weight": ("self_attn.q_proj.weight",),
        "attention.key_value.weight": ("self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "attention.out.weight": ("self_attn.o_proj.weight",),
        "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
        "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "feed_forward.down.weight": ("mlp.down_proj.weight",),
    }

    def pieces(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            theirs = inside[rest]
            for one, piece in zip(theirs, values.chunk(len(theirs)), strict=True):
                yield f"model.layers.{layer}.{one}", piece
        elif name == "norm.weight":
            yield "model.norm.weight", values
        else:
            yield outside[name], values[: config.tokens]

    return pieces


def _check_llama(config: ModelConfig) -> None:
    for name, present in (("qk_norm", config.qk_norm), ("learned_positions", config.learned_positions)):
        if present:
            raise UserError(f"model.{name} has no place in Llama's layout; export with --layout megarc")


def _llama_config(config: ModelConfig, window: Window, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.tokens,
        "hidden_size": config.hidden,
        "intermediate_size": config.width_of_ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.groups,
        "head_dim": config.width_of_head,
        "hidden_act": "silu",
        "max_position_embeddings": window.rows,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "megarc_window": _own_config(config, window)["window"],
    }


def _own_config(config: ModelConfig, window: Window) -> dict[str, Any]:
    shape = {"recent": window.recent, "causal": window.causal, "stride": window.stride}
    return {"format": "megarc model", "megarc": megarc.__version__, "model": to_dict(config), "window": shape}


def _skeleton(config: ModelConfig) -> Transformer:
    """Names and shapes, without memory."""
    with torch.device("meta"):
        return Transformer(config)


def _write_header(path: Path, described: list[tuple[str, list[int]]], dtype: torch.dtype) -> dict[str, int]:
    """Writes safetensors' header and makes room for the data; where each tensor begins in the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in described:
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    data = 8 + len(encoded)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(data + end)
    return {name: data + header[name]["data_offsets"][0] for name, _ in described}
