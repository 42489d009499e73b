"""Steps of small models on this machine's CPU against their prediction from a calibration made beside them.

`benchmarks/plan.py --machine` calls it. One rank runs in this process and counts its own CPU time, since others may
use the machine. Two ranks are processes of one thread each; they wait for each other, so the fastest step's wall time
counts. Calibration and steps take turns: a busy machine is slower in both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from megarc.config import build, to_dict
from megarc.parallel import Groups, disconnect
from megarc.plan import DeviceConfig, Layout, Planner
from megarc.plan.calibrate import calibrate
from megarc.rank_environment import read_rank_environment
from megarc.train import RunConfig, build_engine, open_train, resolve, start, to_tensors

ROOT = Path(__file__).resolve().parents[1]
_STEPS, _TURNS = 6, 3
CASES: dict[str, dict[str, Any]] = {
    "3M, 128 rows": {"model": {"layers": 4, "hidden": 256, "heads": 4, "vocabulary": 2048},
                     "window": {"recent": 64, "causal": 64}, "batch": {"size": 8, "micro": 4}},
    "3M, 512 rows, full": {"model": {"layers": 4, "hidden": 256, "heads": 4, "vocabulary": 2048},
                           "window": {"recent": 256, "causal": 256}, "batch": {"size": 4, "micro": 2},
                           "execution": {"recompute": "full"}},
    "8M, 256 rows, causal": {"model": {"layers": 6, "hidden": 320, "heads": 5, "vocabulary": 4096},
                             "window": {"recent": 0, "causal": 256}, "batch": {"size": 4, "micro": 4}},
}  # fmt: skip


def machine() -> list[dict[str, Any]]:
    """A line for each case and number of ranks."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "tests"))
    sys.path.insert(0, str(ROOT / "tests/support"))
    found = []
    groups = start(read_rank_environment(), lambda: case({}), timedelta(minutes=2)).groups
    for name, keys in CASES.items():
        config = case(keys)
        seconds, device = float("inf"), calibrate(torch.device("cpu"))
        for _ in range(_TURNS):
            seconds = min(seconds, steps(config, groups))
            device = faster(device, calibrate(torch.device("cpu")))
        found.append(line(name, 1, config, device, seconds))
        print(found[-1], flush=True)
        if name == next(iter(CASES)):
            found.append(line(name, 2, config, device, two_ranks(config)))
            print(found[-1], flush=True)
    disconnect()
    return found


def case(keys: dict[str, Any]) -> RunConfig:
    source = [{"kind": "annotated", "options": {"says": ["uniform"]}}]
    tree = {**keys, "parallel": {"zero": 0}, "data": {"train": source}, "device": "cpu"}
    return build(RunConfig, tree, "case")


def faster(one: DeviceConfig, other: DeviceConfig) -> DeviceConfig:
    """The better of two calibrations: each of its rates may have met a busy moment."""
    a, b = one.measured, other.measured

    def best(name: str) -> list[tuple[float, float]]:
        pairs = zip(getattr(a, name), getattr(b, name), strict=True)
        return [(size, max(rate, again)) for (size, rate), (_, again) in pairs]

    tables = {name: best(name) for name in ("products", "memory", "attention", "attention_backward")}
    measured = a.model_copy(
        update={**tables, "functions": max(a.functions or 0, b.functions or 0),
                "optimizer": max(a.optimizer or 0, b.optimizer or 0)}
    )  # fmt: skip
    return one.model_copy(
        update={"measured": measured, "operator_seconds": min(one.operator_seconds, other.operator_seconds)}
    )


def line(name: str, ranks: int, config: RunConfig, device: DeviceConfig, seconds: float) -> dict[str, Any]:
    micro = config.batch.micro or 1
    plan = Planner(config, device).plan(Layout(data=ranks, zero=config.parallel.zero, micro_batch=micro,
                                               recompute=config.execution.recompute))  # fmt: skip
    told = plan.step.seconds
    return {"run": name, "ranks": ranks, "predicted": f"{told:.4f}", "measured": f"{seconds:.4f}",
            "error": f"{100 * (told / seconds - 1):+.1f} %"}  # fmt: skip


def steps(config: RunConfig, groups: Groups) -> float:
    """CPU seconds of the fastest step of one rank."""
    stream = open_train(config, _makers())
    config = resolve(config, stream, groups.topology)
    engine = build_engine(config, groups)
    micro, share = config.batch.micro_batch, config.batch.size // groups.data.size
    batches = [to_tensors(stream.read(first, micro), groups.device) for first in range(0, share, micro)]
    best = float("inf")
    for _ in range(_STEPS + 1):
        begun = time.process_time()
        float(engine.step(batches, 1e-4).loss)
        best = min(best, time.process_time() - begun)
    engine.close()
    return best


def _makers() -> Any:
    from few_steps import make_annotated  # type: ignore[import-not-found]

    return {"annotated": make_annotated}


def two_ranks(config: RunConfig) -> float:
    """Wall seconds of the fastest step of two processes."""
    from support.ranks import run_jobs  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        tree = to_dict(config) | {"folder": f"{folder}/run", "length": f"{4 * _STEPS} steps"}
        tree["logging"] = {"every": 1, "tensorboard": False}
        tree["batch"] |= {"noise_every": 0}
        run_jobs([{"do": "pretrain", "config": tree}], 2, Path(folder))
        return _fastest(Path(folder) / "run" / "metrics.jsonl", config)


def _fastest(metrics: Path, config: RunConfig) -> float:
    import json

    rates = [
        json.loads(text).get("speed/processed_tokens_per_second") for text in metrics.read_text().splitlines()
    ]
    return config.batch.size * config.window.build().rows / max(rate for rate in rates[3:] if rate)
