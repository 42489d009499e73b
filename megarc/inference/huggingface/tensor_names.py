"""Names and cuts of tensors: our parameters, and those of Hugging Face's layout.

Rotary halves are paired alike there, SwiGLU and RMSNorm are the same. Only names differ, and our pairs (keys above
values, gate above up) are two tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import Tensor

from megarc.inference.huggingface.families import Family
from megarc.model import ModelConfig

Pieces: TypeAlias = Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]
"""From a canonical name and its full values to the file's names and values: views, no copies."""

_OUTSIDE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_INSIDE = {
    "attention.query": ("self_attn.q_proj",),
    "attention.key_value": ("self_attn.k_proj", "self_attn.v_proj"),
    "attention.query_norm": ("self_attn.q_norm",),
    "attention.key_norm": ("self_attn.k_norm",),
    "attention.out": ("self_attn.o_proj",),
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": ("mlp.down_proj",),
}


def pieces_of(family: Family, config: ModelConfig) -> Pieces:
    """How a family names and cuts a parameter of ours."""
    inside = {**_INSIDE, **{own: (theirs,) for own, theirs in family.norms.items()}}

    def theirs(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        if not name.startswith("blocks."):
            # Embedding and head: without the ids that pad the vocabulary.
            yield _OUTSIDE[name], values if name == "norm.weight" else values[: config.tokens]
            return
        _, layer, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")  # attention.query, weight or bias
        if config.experts is not None and config.experts.at(int(layer)) and part.startswith("feed_forward."):
            for one, piece in _of_experts(family, config.experts.count, part, values):
                yield f"model.layers.{layer}.{one}.{kind}", piece
            return
        names = inside[part]
        for one, piece in zip(names, values.chunk(len(names)), strict=True):
            yield f"model.layers.{layer}.{one}.{kind}", piece

    return theirs


def _of_experts(family: Family, count: int, part: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Names within a layer, and values, of the router or of one of the matrices of all experts."""
    assert family.experts is not None
    names = {
        "feed_forward.gate_up": (family.experts.gate, family.experts.up),
        "feed_forward.down": (family.experts.down,),
    }
    if part == "feed_forward.router":
        yield family.experts.router, values
        return
    for expert, own in enumerate(values.chunk(count)):
        for name, piece in zip(names[part], own.chunk(len(names[part])), strict=True):
            yield name.format(expert), piece


def zeros_of(family: Family, config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Tensors that the family has and we have not, whose zeros change nothing: the output's bias."""
    if family.fixed_bias is not None or config.attention_bias != "qkv":
        return []
    return [
        (f"model.layers.{layer}.self_attn.o_proj.bias", (config.hidden,)) for layer in range(config.layers)
    ]
