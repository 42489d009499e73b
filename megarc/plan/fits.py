"""For a rank whose memory was not enough: where it goes, and which changes would need less."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from megarc.errors import UserError
from megarc.plan.dry_run import dry_run
from megarc.plan.table import as_table, bytes_together
from megarc.train import RunConfig

_SECONDS = 180.0


def explain_memory(config: RunConfig, world: int, rank: int) -> str:
    """The rank's table and what would need less; from a process of its own, as a dry run needs one."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(told, config.model_dump_json(), world, rank).result(_SECONDS)
    except Exception as error:  # whatever it is, the error that is being explained must not be lost
        return f"(no table: {type(error).__name__}: {error})"


def told(config_json: str, world: int, rank: int) -> str:
    """The same, in this process."""
    config = RunConfig.model_validate_json(config_json)
    here = dry_run(config, world, rank)
    lines = [as_table(here).split("\n\na step tells")[0], "", f"{'what would need less':<38}{'GiB':>9}"]
    for words, changed in _smaller(config):
        try:
            lines.append(f"{words:<38}{bytes_together(dry_run(changed, world, rank)) / 2**30:>9.3f}")
        except UserError:
            continue  # does not fit the ranks
    return "\n".join(lines)


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
