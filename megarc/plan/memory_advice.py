"""For a rank whose memory was not enough: where it goes, and which changes would need less."""

from __future__ import annotations

from megarc.errors import UserError
from megarc.parallel import Topology
from megarc.plan.memory import memory_table, predict
from megarc.train import RunConfig, check_experts


def explain_memory(config: RunConfig, world: int, rank: int) -> str:
    """The rank's table and what would need less."""
    try:
        return explain(config, world, rank)
    except Exception as error:  # whatever it is, the error that is being explained must not be lost
        return f"(no table: {type(error).__name__}: {error})"


def explain(config: RunConfig, world: int, rank: int) -> str:
    """The same; its errors come through."""
    lines = [
        memory_table(predict(config, _topology(config, world), rank)),
        "",
        "what would need less, at its most",
    ]
    for words, changed in _smaller(config):
        try:
            check_experts(changed.model, changed.execution, changed.parallel, changed.optimizer)
            peak = predict(changed, _topology(changed, world), rank).peak
        except (UserError, ValueError):
            continue  # does not fit the ranks, or is refused
        lines.append(f"{words:<44}{peak / 2**20:>11.2f}")
    return "\n".join(lines)


def _topology(config: RunConfig, world: int) -> Topology:
    layout = config.parallel
    return Topology.fit(
        world,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        sequence=layout.sequence,
        context=layout.context,
    )


def _smaller(config: RunConfig) -> list[tuple[str, RunConfig]]:
    """Changes of circumstance: none of them changes a number of the run."""
    micro, found = config.batch.micro_batch, []
    full = config.execution.model_copy(update={"recompute": "full"})
    for size in sorted({micro // 2, micro // 4, 1} - {0, micro}, reverse=True):
        if micro % size == 0:
            batch = config.batch.model_copy(update={"micro": size})
            found.append((f"batch.micro={size}", config.model_copy(update={"batch": batch})))
    if config.execution.recompute != "full":
        found.append(("execution.recompute=full", config.model_copy(update={"execution": full})))
        found += [
            (f"{words} execution.recompute=full", changed.model_copy(update={"execution": full}))
            for words, changed in found[-2:-1]
        ]
    if config.parallel.pipeline == 1:
        for stage in range(config.parallel.zero + 1, 4):
            parallel = config.parallel.model_copy(update={"zero": stage})
            found.append((f"parallel.zero={stage}", config.model_copy(update={"parallel": parallel})))
    return found
