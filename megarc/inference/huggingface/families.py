"""The families of Hugging Face models that our layers can be, and which one a model of ours is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """A family's names of the router, and of the gate, up and down matrix of expert ``{}``.

    Attributes:
        shared: alike of the shared experts, which are one feed-forward; empty: it has none.
        balance: of the bias that is added to scores; empty: it has none.
    """

    router: str
    gate: str
    up: str
    down: str
    shared: tuple[str, ...] = ()
    balance: str = ""


_QWEN_EXPERTS = ExpertNames(
    "mlp.gate", "mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"
)
_MIXTRAL_EXPERTS = ExpertNames(
    "block_sparse_moe.gate",
    "block_sparse_moe.experts.{}.w1",
    "block_sparse_moe.experts.{}.w3",
    "block_sparse_moe.experts.{}.w2",
)
_GLM_EXPERTS = replace(
    _QWEN_EXPERTS,
    shared=tuple(f"mlp.shared_experts.{one}_proj" for one in ("gate", "up", "down")),
    balance="mlp.gate.e_score_correction_bias",
)


@dataclass(frozen=True, slots=True)
class Family:
    """One class of transformers.

    Attributes:
        model_type: of config.json; ``name`` begins its classes' names.
        own: values of our keys that its layers have, whatever config.json says.
        norms: its names of a block's two norms.
        fixed_bias: the biases that it always has; None: its key ``attention_bias`` says none or ``biased``.
        defaults: what transformers (5.24) takes where config.json does not say it.
        keys: what else its config.json may say.
        experts: names of its experts, where it has some.
    """

    model_type: str
    name: str
    own: Mapping[str, Any]
    norms: Mapping[str, str] = field(default_factory=lambda: _LLAMA_NORMS)
    fixed_bias: str | None = None
    biased: str = "all"
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
        Family(
            "glm4_moe", "Glm4Moe", {}, biased="qkv", experts=_GLM_EXPERTS,
            defaults={"num_key_value_heads": 8, "attention_bias": False, "num_experts_per_tok": 8,
                      "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5},
            keys=(*_ROUTER, "moe_intermediate_size", "norm_topk_prob", "n_routed_experts", "n_shared_experts",
                  "routed_scaling_factor", "n_group", "topk_group", "first_k_dense_replace", "use_qk_norm",
                  "partial_rotary_factor", "num_nextn_predict_layers", "num_mtp_layers"),
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
    """Of the three that have experts, the one with such layers.

    Raises:
        UserError: where none has.
    """
    plain = config.norm_place == "before" and config.rope_skip_every is None
    of_heads = not config.qk_norm or config.qk_norm_over == "head"
    if experts.scores == "sigmoid":
        if plain and of_heads and config.attention_bias != "all" and experts.every == 1:
            return "glm4_moe"
    elif experts.balance == "bias":
        raise UserError(
            "model.experts.balance bias with softmax scores cannot be stored in the Hugging Face layouts that megarc "
            "knows: rows would go to other experts without it. Export with --layout megarc, or train with scores "
            "sigmoid (glm4_moe), or with balance loss or none (qwen3_moe, mixtral)"
        )
    elif plain and experts.shared == 0 and experts.scale == 1.0:
        if config.qk_norm and of_heads and config.attention_bias != "qkv":
            return "qwen3_moe"
        everywhere = all(experts.at(layer) for layer in range(config.layers))
        if not config.qk_norm and config.attention_bias == "none" and experts.normalised and everywhere:
            return "mixtral"
    told = ", ".join(f"{name} {getattr(experts, name)}" for name in ("scores", "shared", "scale", "every"))
    raise UserError(
        f"no class of transformers that megarc knows has these layers with experts ({told}): qwen3_moe has qk_norm "
        "over each head, mixtral neither qk_norm nor biases nor dense layers, both softmax scores, no shared experts "
        "and no scale; glm4_moe has sigmoid scores, and only first layers are dense. Export with --layout megarc"
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
