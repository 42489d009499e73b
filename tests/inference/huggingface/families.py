"""Tiny random models of each family and switch, as transformers makes them."""

import warnings

import pytest
import torch

COMMON = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {
    "llama": ("Llama", {}),
    "llama 3, tied": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, biases and wide heads": ("Llama", {"attention_bias": True, "head_dim": 12}),
    "llama, linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    ),
    "qwen 2, yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen 2, all of yarn": (
        "Qwen2",
        {
            "rope_parameters": {
                **YARN, "attention_factor": 0.8, "beta_fast": 16, "beta_slow": 2, "truncate": False
            }
        },
    ),
    "qwen 3": ("Qwen3", {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "olmo 2": ("Olmo2", {"attention_bias": True, "rms_norm_eps": 1e-3}),
    "smollm 3": ("SmolLM3", {}),
    "qwen 3, experts": (
        "Qwen3Moe",
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "decoder_sparse_step": 2,
         "norm_topk_prob": True, "mlp_only_layers": [0, 1], "head_dim": 16},
    ),
    "glm 4, experts": (
        "Glm4Moe",
        {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "n_shared_experts": 2,
         "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "head_dim": 16, "use_qk_norm": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 3}),
}  # fmt: skip


def peer():
    """transformers, or a warning that pytest's summary shows."""
    try:
        import transformers
    except ImportError:
        warnings.warn("NOT COMPARED with Hugging Face's models: pip install transformers", stacklevel=2)
        pytest.skip("the peer, transformers, is not installed")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def saved(folder, kind, changes=None, **how):
    """A random model of ``kind``, also written to ``folder``."""
    transformers = peer()
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **(changes or {})})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # gains are 1 and biases 0 as they begin, which hides faults
            parameter.data.uniform_(0.5, 1.5) if "norm" in name else parameter.data.normal_(0, 0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.3)
    model.save_pretrained(folder, **how)
    return model


def tokens(rows, batch=2):
    return torch.randint(0, 100, (batch, rows), generator=torch.Generator().manual_seed(rows))
