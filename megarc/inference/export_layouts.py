"""What a model looks like in one file: names of tensors and config.json, ours and Hugging Face's.

Our block is Llama's, or with ``qk_norm`` Qwen 3's: rotary halves are paired
alike, SwiGLU and RMSNorm are theirs. Only names differ, and our pairs (keys
above values, gate above up) are two tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

import megarc
from megarc.config import build, to_dict
from megarc.errors import UserError
from megarc.model import ModelConfig
from megarc.window import Window

Layout: TypeAlias = Literal["megarc", "huggingface"]
Pieces: TypeAlias = Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]
"""From a canonical name and its full values to the file's names and values: views, no copies."""

_FORMAT = "megarc model"
_OUTSIDE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_INSIDE = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.query.weight": ("self_attn.q_proj.weight",),
    "attention.key_value.weight": ("self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.query_norm.weight": ("self_attn.q_norm.weight",),
    "attention.key_norm.weight": ("self_attn.k_norm.weight",),
    "attention.out.weight": ("self_attn.o_proj.weight",),
    "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
}


def pieces_of(layout: Layout, config: ModelConfig) -> Pieces:
    """How ``layout`` names and cuts a parameter.

    Raises:
        UserError: where the layout has no place for the model.
    """
    if layout == "megarc":
        return _as_it_is
    if config.learned_positions:
        raise UserError(
            "model.learned_positions has no place in Hugging Face's layout; export with --layout megarc"
        )

    if isinstance(config.ffn, list):
        raise UserError(
            "layers with feed-forwards of different widths have no place in Hugging Face's layout; export with "
            "--layout megarc, or with one --width for all layers"
        )

    def theirs(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        if not name.startswith("blocks."):
            # Embedding and head: without the ids that pad the vocabulary. The norm is never so long.
            yield _OUTSIDE[name], values if name == "norm.weight" else values[: config.tokens]
            return
        _, layer, rest = name.split(".", 2)
        names = _INSIDE[rest]
        for one, piece in zip(names, values.chunk(len(names)), strict=True):
            yield f"model.layers.{layer}.{one}", piece

    return theirs


def describe(layout: Layout, config: ModelConfig, window: Window, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json of a model."""
    shape = {"recent": window.recent, "causal": window.causal, "stride": window.stride}
    own = {"format": _FORMAT, "megarc": megarc.__version__, "model": to_dict(config), "window": shape}
    if layout == "megarc":
        return own
    if window.recent:
        own["note"] = (
            f"Trained with the window {window}: its first {window.recent} rows all see each other. Served under "
            "a plain causal mask this is another model, with worse predictions."
        )
    kind = ("Qwen3ForCausalLM", "qwen3") if config.qk_norm else ("LlamaForCausalLM", "llama")
    return {
        "architectures": [kind[0]],
        "model_type": kind[1],
        "vocab_size": config.tokens,
        "hidden_size": config.hidden,
        "intermediate_size": config.width_of_ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.groups,
        "head_dim": config.width_of_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": window.rows,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": None,
        "eos_token_id": None,
        "megarc": own,
    }


def read_description(facts: Mapping[str, Any], place: str) -> tuple[Layout, ModelConfig, Window]:
    """Layout, model and window of a config.json that ``describe`` made.

    Raises:
        UserError: where it is another's.
    """
    layout: Layout = "huggingface" if "architectures" in facts else "megarc"
    own = facts.get("megarc") if layout == "huggingface" else facts
    if not isinstance(own, Mapping) or own.get("format") != _FORMAT:
        raise UserError(f"{place} was not written by megarc's export; launch/export.py writes such a folder")
    return layout, build(ModelConfig, own["model"], place), Window(**own["window"])


def _as_it_is(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, values
