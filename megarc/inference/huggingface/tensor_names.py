"""Names and cuts of tensors: our parameters, and those of Hugging Face's layout.

Rotary halves are paired alike there, SwiGLU and RMSNorm are the same. Only names differ, and our pairs (keys above
values, gate above up) are two tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import Tensor

from megarc.inference.huggingface.families import ExpertNames, Family
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
            for one, piece in _of_experts(family.experts, config.experts.count, rest, values):
                yield f"model.layers.{layer}.{one}", piece
            return
        names = inside[part]
        for one, piece in zip(names, values.chunk(len(names)), strict=True):
            yield f"model.layers.{layer}.{one}.{kind}", piece

    return theirs


def _of_experts(
    theirs: ExpertNames | None, count: int, own: str, values: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Names within a layer, and values, of ``own``: what routes, or one of the matrices of all experts."""
    assert theirs is not None
    gate, up, down = theirs.shared or ("", "", "")
    at_once = {
        "router.weight": (f"{theirs.router}.weight",),
        "router.balance": (theirs.balance,),
        "shared_gate_up.weight": (f"{gate}.weight", f"{up}.weight"),
        "shared_down.weight": (f"{down}.weight",),
    }
    each = {"gate_up.weight": (theirs.gate, theirs.up), "down.weight": (theirs.down,)}
    own = own.removeprefix("feed_forward.")
    if own in at_once:
        yield from zip(at_once[own], values.chunk(len(at_once[own])), strict=True)
        return
    for expert, matrices in enumerate(values.chunk(count)):
        for name, piece in zip(each[own], matrices.chunk(len(each[own])), strict=True):
            yield f"{name.format(expert)}.weight", piece


def zeros_of(family: Family, config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Tensors that the family has and we have not, whose zeros change nothing.

    These are the output's bias; and where experts have them, a bias of scores and the shared expert.
    """
    found: dict[str, tuple[int, ...]] = {}
    if family.fixed_bias is None and family.biased == "all" and config.attention_bias == "qkv":
        found |= {f"{layer}.self_attn.o_proj.bias": (config.hidden,) for layer in range(config.layers)}
    keys, names = config.experts, family.experts
    for layer in range(config.layers) if keys is not None else ():
        if names is None or keys is None or not keys.at(layer):
            continue
        if names.balance and keys.balance != "bias":
            found[f"{layer}.{names.balance}"] = (keys.count,)
        if names.shared and not keys.shared:
            width = config.width_of_expert
            shapes = ((width, config.hidden), (width, config.hidden), (config.hidden, width))
            found |= {f"{layer}.{one}.weight": shape for one, shape in zip(names.shared, shapes, strict=True)}
    return [(f"model.layers.{name}", shape) for name, shape in found.items()]
