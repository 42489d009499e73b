"""Mixers at equal FLOPs and equal parameters: does a long R that is read cheaply beat a short one read exactly?

    python benchmarks/mixers.py                trains what is not there yet; the same command goes on
    python benchmarks/mixers.py --seconds 300  begins no training after so long
    python benchmarks/mixers.py --report       the tables of what is there

Arms: attention everywhere, ssm:3 attention:1, crf:3 attention:1, and ssm on R with attention on C; each with a short R,
and all but crf with one 8 times longer. The feed-forward of an arm is as wide as makes its parameters those of
attention, and its steps are as many as take the same FLOPs. Tasks: the demo corpus as bytes; recall over a distance
(``megarc.science.distant_recall``), of whose answers a short R holds one eighth, with initial values of .1 (models of
this width learn late from .02: docs/recipes.md); and pairs: a function's code (R) and its docstring (C), packed,
without a longer R. `python benchmarks/recipe_data.py documented` makes the pairs.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from short_runs import BYTES, alone, done, keep, study
from stale import mark_of

from megarc.config import build
from megarc.errors import run_script
from megarc.report import table

RESULTS = Path(__file__).with_name("results") / "mixers.json"
SEEDS, TIMES = (0, 1, 2), 8
PATTERNS = {
    "attention": "attention",
    "ssm:3 attention:1": "ssm:3 attention:1",
    "ssm on R, attention on C": "ssm_attention",
    "crf:3 attention:1": "crf:3 attention:1",
}
TASKS = {"text": (64, 64, 8, 600), "recall": (4, 8, 32, 2000), "pairs": (192, 64, 4, 400)}
"""Rows of the short R and of C, samples and steps of the arm attention with the short R."""
BYTE_TOKENS = 273  # bytes, the end of a document, and what the tokenizer keeps for special tokens


def main() -> int:
    return study(__doc__, train_all, report)


def arms(task: str) -> list[tuple[str, int]]:
    """Name of the pattern, and how many times longer R is."""
    longer = [] if task == "pairs" else [(name, TIMES) for name in PATTERNS if "crf" not in name]
    return [(name, 1) for name in PATTERNS] + longer


def train_all(seconds: float) -> None:
    from megarc.science import MAKERS
    from megarc.science.short_training import short_training

    begun = time.monotonic()
    wanted = [(task, name, times, seed) for task in TASKS for seed in SEEDS for name, times in arms(task)]
    missing = [one for one in wanted if named(*one) not in done(RESULTS)]
    if not missing:
        return
    with alone() as groups:
        for one in missing:
            if time.monotonic() - begun > seconds:
                return
            config, steps = configuration(*one)
            start = time.process_time()
            with short_training(config, groups, MAKERS) as training:
                for _ in training.steps(steps):
                    pass
                found = {
                    "heldout": training.heldout(),
                    "steps": steps,
                    "parameters": parameters(training.config),
                }
            found["cpu_seconds"] = round(time.process_time() - start, 1)
            keep(RESULTS, named(*one), found)
            print(named(*one), found, f"{time.monotonic() - begun:.0f} s", flush=True)


def named(task: str, name: str, times: int, seed: int) -> str:
    return f"{task}/{name}/R x {times}/{seed}"


def configuration(task: str, name: str, times: int, seed: int):
    """The run of an arm, with its own width of the feed-forward, and its steps."""
    from megarc.science.recipes import flops_of

    base = run_of(task, "attention", 1, seed, 176, 1)
    wanted = parameters(base)
    ffn = min(
        range(8, 257, 4),
        key=lambda ffn: abs(parameters(run_of(task, name, times, seed, ffn, 1)) - wanted),
    )
    config = run_of(task, name, times, seed, ffn, 1)
    steps = round(TASKS[task][3] * flops_of(base) / flops_of(config))
    return run_of(task, name, times, seed, ffn, steps), steps


def parameters(config) -> int:
    from megarc.model import cost_of

    return cost_of(config.model, config.window.build()).parameters


def run_of(task: str, name: str, times: int, seed: int, ffn: int, steps: int):
    from megarc.train import RunConfig

    recent, causal, size, _ = TASKS[task]
    pairs = TIMES * recent // 2
    asked = [{"kind": "distant_recall", "options": {"pairs": pairs, "seed": number}} for number in (0, 1)]
    data: dict[str, dict[str, Any]] = {
        "text": BYTES,
        "recall": {"train": asked[:1], "valid": asked[1:]},
        "pairs": {
            "train": [{"path": "recipes/documented/train"}],
            "valid": [{"path": "recipes/documented/heldout"}],
            "packing": "best_fit",
        },
    }
    tree = {
        "length": f"{steps} steps",
        "seed": seed,
        "window": {"recent": times * recent, "causal": causal},
        "model": {
            "layers": 4,
            "hidden": 64,
            "heads": 4,
            "ffn": ffn,
            "mixers": PATTERNS[name],
            "vocabulary": 2 * pairs if task == "recall" else BYTE_TOKENS,
            "initial_std": 0.1 if task == "recall" else 0.02,
        },
        "data": data[task],
        "batch": {"size": size, "micro": size, "noise_every": 0},
        "optimizer": {"lr": 2.0**-8},
        "schedule": {"kind": "cosine", "warmup": "0.1 of run"},
        "validation": {"windows": 256},
    }
    return build(RunConfig, tree, "benchmarks/mixers.py")


def report() -> None:
    """A table for each task; what stands behind ± is a standard error over the seeds."""
    known = done(RESULTS)
    for task, (recent, causal, *_) in TASKS.items():
        rows = []
        for name, times in arms(task):
            found = {seed: known[one] for seed in SEEDS if (one := named(task, name, times, seed)) in known}
            if not found:
                continue
            losses = {seed: one["heldout"] for seed, one in found.items()}
            short = {seed: known.get(named(task, "attention", 1, seed), {}).get("heldout") for seed in found}
            ahead = [loss - short[seed] for seed, loss in losses.items() if short[seed] is not None]
            first, cpu = next(iter(found.values())), fmean(one["cpu_seconds"] for one in found.values())
            rows.append(
                [name, times * recent, causal, first["parameters"], first["steps"], len(found),
                 mean(list(losses.values())), mean(ahead, "+") if ahead else "", f"{cpu:.0f}"]
            )  # fmt: skip
        print(f"{task}\n\n{mark_of('benchmarks/mixers.py')}\n")
        columns = ["mixers", "R", "C", "parameters", "steps", "seeds", "held-out, nats"]
        columns += ["less attention's with the short R", "CPU-s"]
        print(table(columns, rows, markdown=True), "\n")


def mean(values: list[float], sign: str = "") -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.3f}{error}"


if __name__ == "__main__":
    run_script(main)
