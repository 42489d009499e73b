"""The families of Hugging Face models that our layers can be, and which one a model of ours is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megarc.errors import UserError
from megarc.model import ModelConfig
from megarc.model.experts_config import ExpertsConfig


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
class ExpertNames:
    """A family's names of the router, and of the gate, up and down matrix of expert ``{}``."""

    router: str
    gate: str
    up: str
    down: str


_QWEN_EXPERTS = ExpertNames("mlp.gate", *(f"mlp.experts.{{}}.{one}_proj" for one in ("gate", "up", "down")))
_MIXTRAL_EXPERTS = ExpertNames(
    "block_sparse_moe.gate", *(f"block_sparse_moe.experts.{{}}.{one}" for one in ("w1", "w3", "w2"))
)


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
        experts: names of its experts, where it has some.
    """

    model_type: str
    name: str
    own: Mapping[str, Any]
    norms: Mapping[str, str] = field(default_factory=lambda: _LLAMA_NORMS)
    fixed_bias: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    experts: ExpertNames | None = None

    @property
    def architecture(self) -> str:
        """The class of the whole model."""
        return f"{self.name}ForCausalLM"


_ROUTER = ("num_experts_per_tok", "num_local_experts", "router_aux_loss_coef", "output_router_logits")
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
        Family(
            "qwen3_moe", "Qwen3Moe", {"qk_norm": True}, experts=_QWEN_EXPERTS,
            defaults={"num_key_value_heads": 4, "attention_bias": False, "num_experts_per_tok": 8,
                      "decoder_sparse_step": 1},
            keys=(*_SLIDING, *_ROUTER, "num_experts", "moe_intermediate_size", "norm_topk_prob",
                  "decoder_sparse_step", "mlp_only_layers"),
        ),
        Family(
            "mixtral", "Mixtral", {}, fixed_bias="none", experts=_MIXTRAL_EXPERTS,
            defaults={"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
            keys=(*_ROUTER, "sliding_window", "router_jitter_noise"),
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
    if config.experts is not None:
        return FAMILIES[_family_of_experts(config, config.experts)]
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


def _family_of_experts(config: ModelConfig, experts: ExpertsConfig) -> str:
    """Of the two that have experts, the one with such layers.

    Raises:
        UserError: where neither has.
    """
    if experts.balance == "bias":
        raise UserError(
            "model.experts.balance bias has no place in Hugging Face's layouts of Mixtral and Qwen 3: rows would go to "
            "other experts without it; export with --layout megarc, or train with balance loss or none"
        )
    wrong = {
        "scores": experts.scores != "softmax", "shared": experts.shared > 0, "scale": experts.scale != 1.0,
    }  # fmt: skip
    plain = config.norm_place == "before" and config.rope_skip_every is None and not any(wrong.values())
    if plain and config.qk_norm and config.qk_norm_over == "head" and config.attention_bias != "qkv":
        return "qwen3_moe"
    everywhere = all(experts.at(layer) for layer in range(config.layers))
    if plain and not config.qk_norm and config.attention_bias == "none" and experts.normalised and everywhere:
        return "mixtral"
    named = ", ".join(
        f"experts.{name}={getattr(experts, name)}" for name, is_wrong in wrong.items() if is_wrong
    )
    raise UserError(
        f"no class of transformers that megarc knows has these experts{f' ({named})' * bool(named)}: qwen3_moe has "
        "qk_norm over each head, mixtral neither qk_norm nor biases nor dense layers, and both softmax scores and no "
        "shared experts; export with --layout megarc"
    )


_EXPRESSED = words(
    """
    layers hidden heads kv_heads head_dim ffn experts vocabulary vocabulary_multiple tied qk_norm qk_norm_over
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
