"""The families of Hugging Face models that our layers can be, and which one a model of ours is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megarc.errors import UserError
from megarc.model import ModelConfig


def words(text: str) -> frozenset[str]:
    """The words of a text, for sets of keys."""
    return frozenset(text.split())


_LLAMA_NORMS = {
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
}
_OLMO_NORMS = {
    "attention_norm": "post_attention_layernorm",
    "feed_forward_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One class of transformers.

    Attributes:
        model_type: of config.json; ``name`` begins its classes' names.
        own: values of our keys that its layers have, whatever config.json says.
        norms: its names of a block's two norms.
        fixed_bias: the biases that it always has; None: its key ``attention_bias`` says none or all.
        defaults: what transformers (5.24) takes where config.json does not say it.
        keys: what else its config.json may say.
    """

    model_type: str
    name: str
    own: Mapping[str, Any]
    norms: Mapping[str, str] = field(default_factory=lambda: _LLAMA_NORMS)
    fixed_bias: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The class of the whole model."""
        return f"{self.name}ForCausalLM"


_SLIDING = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")

FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", "Llama", {}, defaults={"attention_bias": False}),
        Family(
            "qwen2", "Qwen2", {}, fixed_bias="qkv", defaults={"num_key_value_heads": 32}, keys=_SLIDING
        ),
        Family(
            "qwen3", "Qwen3", {"qk_norm": True},
            defaults={"head_dim": 128, "num_key_value_heads": 32, "attention_bias": False}, keys=_SLIDING,
        ),
        Family(
            "mistral", "Mistral", {}, fixed_bias="none",
            defaults={"num_key_value_heads": 8, "sliding_window": 4096}, keys=("sliding_window",),
        ),
        Family(
            "olmo2", "Olmo2", {"qk_norm": True, "qk_norm_over": "all", "norm_place": "after"}, _OLMO_NORMS,
            defaults={"attention_bias": False},
        ),
        Family(
            "smollm3", "SmolLM3", {},
            defaults={"num_key_value_heads": 4, "attention_bias": False, "tie_word_embeddings": True},
            keys=(*_SLIDING, "no_rope_layers", "no_rope_layer_interval"),
        ),
    )
}  # fmt: skip


def family_of(config: ModelConfig) -> Family:
    """The family whose layers are those of ``config``.

    Raises:
        UserError: where there is none, with the keys that no family has together.
    """
    _refuse_unknown_keys(config)
    if config.learned_positions is not None:
        raise UserError(
            "model.learned_positions has no place in Hugging Face's layout; export with --layout megarc"
        )
    if isinstance(config.ffn, list):
        raise UserError(
            "layers with feed-forwards of different widths have no place in Hugging Face's layout; export with "
            "--layout megarc, or with one --width for all layers"
        )
    norms = (config.norm_place, config.qk_norm, config.qk_norm_over)
    found = {
        ("before", False, "head"): "llama",
        ("before", True, "head"): "qwen3",
        ("after", True, "all"): "olmo2",
    }.get(norms)
    if found == "llama":
        if config.rope_skip_every is not None:
            found = "smollm3"
        elif config.attention_bias == "qkv":
            found = "qwen2"
        elif config.hidden % config.heads:
            found = "mistral" if config.attention_bias == "none" else None  # Llama's class refuses such heads
    elif config.rope_skip_every is not None:
        found = None
    if found is None:
        raise UserError(
            f"no class of transformers has a norm_place of '{config.norm_place}' with qk_norm={config.qk_norm}, "
            f"qk_norm_over '{config.qk_norm_over}', attention_bias '{config.attention_bias}', hidden {config.hidden} "
            f"with {config.heads} heads and rope_skip_every={config.rope_skip_every}; export with --layout megarc"
        )
    return FAMILIES[found]


_EXPRESSED = words(
    """
    layers hidden heads kv_heads head_dim ffn vocabulary vocabulary_multiple tied qk_norm qk_norm_over
    attention_bias norm_place rope_base rope_scaling rope_skip_every learned_positions norm_epsilon
    initial_std
    """
)


def _refuse_unknown_keys(config: ModelConfig) -> None:
    """A key that this table does not know yet, and that is not at its default, may change what is computed."""
    for name, about in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in _EXPRESSED and value != about.get_default(call_default_factory=True):
            raise UserError(
                f"model.{name} is {value}, which has no place in Hugging Face's layout; export with --layout megarc"
            )
