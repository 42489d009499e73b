"""The config.json of a model of ours in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from megarc.inference.huggingface.families import Family
from megarc.model import ModelConfig
from megarc.window import Window

MODELING = Path(__file__).with_name("modeling_megarc.py")
"""The one file of code that goes along; transformers runs it with ``trust_remote_code`` alone."""


def describe(family: Family, config: ModelConfig, window: Window, dtype: torch.dtype) -> dict[str, Any]:
    """All keys but ``megarc``, which says the model in our own words.

    ``recent``, ``causal`` and ``stride`` are the window; ``prefix_lm`` says, as transformers' own models of this
    kind do, that rows of ``token_type_ids`` 1 see each other.
    """
    facts: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
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
        "rope_parameters": _rope(config) | _whole_heads(family),
        "tie_word_embeddings": config.tied,
        "initializer_range": config.initial_std,
        "dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **_only(family, config),
    }
    if window.recent:
        facts |= {
            "prefix_lm": True,
            "recent": window.recent,
            "causal": window.causal,
            "stride": window.stride,
            "auto_map": {
                "AutoConfig": "modeling_megarc.MegarcConfig",
                "AutoModelForCausalLM": "modeling_megarc.MegarcForCausalLM",
            },
        }
    return facts


def modeling(family: Family) -> bytes:
    """The file of code, for a model of this family."""
    return MODELING.read_bytes().replace(b"Llama", family.name.encode())


def _only(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Keys of this family alone."""
    found: dict[str, Any] = {}
    if family.fixed_bias is None:
        found["attention_bias"] = config.attention_bias != "none"
    if "sliding_window" in family.keys:
        found["sliding_window"] = None
    if "use_sliding_window" in family.keys:
        found["use_sliding_window"] = False
    if config.experts is not None:
        experts = config.experts
        found |= {"num_local_experts": experts.count, "num_experts_per_tok": experts.active}
        found |= {"router_aux_loss_coef": experts.loss_weight if experts.balance == "loss" else 0.0}
        if family.model_type == "mixtral":
            found["intermediate_size"] = config.width_of_expert
        elif family.model_type == "glm4_moe":
            del found["num_local_experts"], found["router_aux_loss_coef"]
            found |= {
                "n_routed_experts": experts.count,
                "n_shared_experts": max(1, experts.shared),  # of none it has one, whose matrices are 0
                "moe_intermediate_size": config.width_of_expert,
                "norm_topk_prob": experts.normalised,
                "routed_scaling_factor": experts.scale,
                "first_k_dense_replace": experts.dense_first,
                "n_group": 1,
                "topk_group": 1,
                "use_qk_norm": config.qk_norm,
                "num_nextn_predict_layers": 0,
            }
        else:
            del found["num_local_experts"]
            found |= {
                "num_experts": experts.count,
                "moe_intermediate_size": config.width_of_expert,
                "norm_topk_prob": experts.normalised,
                "decoder_sparse_step": experts.every,
                "mlp_only_layers": list(range(experts.dense_first)),
            }
    if "no_rope_layers" in family.keys:
        every = config.rope_skip_every
        assert every is not None
        found["no_rope_layers"] = [int((layer + 1) % every != 0) for layer in range(config.layers)]
    return found


def _whole_heads(family: Family) -> dict[str, Any]:
    """Of a family that rotates a part of each head unless it is told otherwise."""
    return {"partial_rotary_factor": 1.0} if "partial_rotary_factor" in family.keys else {}


def _rope(config: ModelConfig) -> dict[str, Any]:
    scaling, theta = config.rope_scaling, {"rope_theta": config.rope_base}
    if scaling is None:
        return {"rope_type": "default", **theta}
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor, **theta}
    if scaling.kind != "linear":
        found["original_max_position_embeddings"] = scaling.original_rows
    if scaling.kind == "llama3":
        found |= {"low_freq_factor": scaling.low_turns, "high_freq_factor": scaling.high_turns}
    if scaling.kind == "yarn":
        found |= {"beta_slow": scaling.low_turns, "beta_fast": scaling.high_turns}
        found |= {"attention_factor": scaling.magnitude, "truncate": scaling.whole_numbers}
    return found
