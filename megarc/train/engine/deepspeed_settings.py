"""DeepSpeed's dictionary, derived from our configuration: the only place where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megarc.errors import UserError
from megarc.train.config import RunConfig

_BUCKET = 500_000_000


def deepspeed_settings(
    config: RunConfig, micro_batch: int, micro_batches: int, device: str = "cpu", context: int = 1
) -> dict[str, Any]:
    """The dictionary for ``deepspeed.initialize``; ``deepspeed:`` of the configuration comes last.

    Args:
        context: ranks that share the rows of a sample. DeepSpeed counts it once for each of them.

    Raises:
        UserError: where ``deepspeed:`` contradicts a key that is derived.
    """
    derived: dict[str, Any] = {
        "train_batch_size": config.batch.size * context,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": micro_batches,
        # Ours clips at the gate; theirs, left out, means 1.0.
        "gradient_clipping": 0.0,
        "zero_optimization": _zero(config, device),
        "zero_allow_untested_optimizer": True,
        # Offloaded, torch's AdamW goes on: theirs would be compiled at first use.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
    }
    if config.parallel.pipeline > 1:
        derived["pipeline"] = {
            # Hidden rows travel whole, or, with sequence parallelism, as each rank's rows.
            "pipe_partitioned": False,
            "grad_partitioned": False,
            # Computed again by DeepSpeed, a layer would find another micro-batch beside it.
            "activation_checkpoint_interval": 0,
        }
    if config.precision == "bf16":
        # Its own look at every gradient for inf and nan: the gate judges by the norm.
        derived["bf16"] = {"enabled": True, "check_grad_overflow": False}
        derived["data_types"] = {"grad_accum_dtype": "fp32"}
    return _passed_through(derived, config.deepspeed, "deepspeed")


def bucket(config: RunConfig, elements: float) -> int:
    """Elements of the buffer in which ZeRO gathers gradients before it reduces them.

    DeepSpeed's own 5e8, or no more than this rank has: it allocates them whole, 2 GB in float32, whatever the model's
    size.

    Args:
        elements: of the rank's parameters, before ZeRO shares them out.
    """
    passed = config.deepspeed.get("zero_optimization", {}).get("reduce_bucket_size")
    return int(min(_BUCKET, elements) if passed is None else passed)


def _zero(config: RunConfig, device: str) -> dict[str, Any]:
    parallel = config.parallel
    zero: dict[str, Any] = {
        "stage": parallel.zero,
        # Checkpoints read where each parameter lies; this would make that map wrong.
        "round_robin_gradients": False,
        # Gradients are reduced while the backward pass goes on; on a CPU there is nothing to overlap.
        "overlap_comm": device == "cuda",
    }
    host = {"device": "cpu", "pin_memory": device == "cuda"}
    if parallel.offload != "none":
        zero["offload_optimizer"] = host
    if parallel.offload == "all":
        zero["offload_param"] = host
    if parallel.node is not None:
        zero["zero_hpz_partition_size"] = parallel.node
    return zero


def _passed_through(derived: Mapping[str, Any], extra: Mapping[str, Any], place: str) -> dict[str, Any]:
    merged = dict(derived)
    for name, value in extra.items():
        if name not in derived:
            merged[name] = value
        elif isinstance(derived[name], dict) and isinstance(value, dict):
            merged[name] = _passed_through(derived[name], value, f"{place}.{name}")
        elif derived[name] != value:
            raise UserError(
                f"{place}.{name} is {value!r}, but megarc derives {derived[name]!r} from its own keys; "
                "change those and leave this one out"
            )
    return merged
