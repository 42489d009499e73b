"""Our whole step against the same model in a bare PyTorch loop, one process on a CPU.

    python benchmarks/step.py                       configs/models/10M.yaml, r = c = 128
    python benchmarks/step.py --compile             both compiled
    python benchmarks/step.py --switches            a bare step under each switch, beside
    python benchmarks/step.py --model 1M --half 64 --samples 4 --blocks 250      1,000 steps: whether they get slower

A real run trains; after every few steps of it the bare loop takes as many, on the same batches, so that a busy machine
slows both. Time is CPU time of the whole process (the reading thread too) on one compute thread, the median of blocks.
Ours: reading ahead, DeepSpeed's engine, clipping, votes, metrics. Bare: forward, backward, clipping, torch's fused
AdamW. Then where the rest goes. Written to benchmarks/results/step.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from options import options

from megarc.config import load
from megarc.data import Facts, Sample
from megarc.errors import run_script
from megarc.model import ExecutionConfig, Transformer, initialise
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.report import table
from megarc.train import Observer, RunConfig, pretrain
from megarc.train.engine.optimizer import adamw

ROOT = Path(__file__).resolve().parents[1]
BLOCK, WARM = 4, 3  # steps in turn; blocks that are not counted
SWITCHES = {
    "eager": {},
    "compile": {"compile": True},
    "selective": {"recompute": "selective"},
    "full": {"recompute": "full"},
    "full, every 2nd": {"recompute": "full", "recompute_every": 2},
    "compile, selective": {"compile": True, "recompute": "selective"},
}


def main() -> int:
    parser = options(__doc__, "step.json")
    parser.add_argument("--model", default="10M", help="a file of configs/models (10M)")
    parser.add_argument("--half", type=int, default=128, metavar="R", help="rows of R and of C (128)")
    parser.add_argument("--samples", type=int, default=8, help="of a step (8)")
    parser.add_argument("--blocks", type=int, default=12, help=f"timed blocks of {BLOCK} steps of each (12)")
    parser.add_argument("--zero", type=int, default=1, help="ZeRO stage (1)")
    parser.add_argument("--compile", action="store_true", help="both compiled")
    parser.add_argument("--switches", action="store_true", help="a bare step under each switch too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    groups = connect(meet(ALONE), "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        config = configured(arguments, Path(scratch))
        race = Race(config)
        pretrain(config, groups, {"noise": Noise}, watch=[race])
    disconnect()
    facts = race.facts()
    if arguments.switches:
        facts["switches_ms"] = {name: alone(config, **keys) for name, keys in SWITCHES.items()}
    facts["keys"] = {name: str(value) for name, value in vars(arguments).items() if name != "out"}
    facts |= {"torch": torch.__version__, "python": platform.python_version()}
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n")
    show(facts)
    return 0


def configured(arguments: argparse.Namespace, folder: Path) -> RunConfig:
    length = BLOCK * (arguments.blocks + WARM)
    keys = [
        f"window.recent={arguments.half}", f"window.causal={arguments.half}", "data.train=[{kind: noise}]",
        "model.vocabulary=8192", f"batch.size={arguments.samples}", f"batch.micro={arguments.samples}",
        f"parallel.zero={arguments.zero}", f"folder={folder}", "logging.peak_flops=1e12",
        f"execution.compile={str(arguments.compile).lower()}", f"length={length} steps", "schedule.warmup=2 steps",
        "checkpoint.every=100000 steps",
    ]  # fmt: skip
    return load(RunConfig, ROOT / "configs" / "models" / f"{arguments.model}.yaml", keys)


class Noise:
    """Tokens drawn by the sample's number: data that costs little."""

    facts, digest = Facts("noise", vocabulary=8192), "noise"

    def __init__(self, config, window) -> None:
        self.tokens = window.tokens

    def __len__(self) -> int:
        return 1 << 40

    def read(self, k: int) -> Sample:
        return Sample(np.random.default_rng(k).integers(0, 8192, self.tokens, dtype=np.int32))


class Race(Observer):
    """After every block of the run's steps, as many of the bare loop's; CPU seconds of both, by phase."""

    def __init__(self, config: RunConfig) -> None:
        self.bare = Bare(config, config.execution)
        self.blocks: list[tuple[float, float]] = []
        self.phases: dict[str, float] = defaultdict(float)
        self.phase, self.since, self.begun = "", 0.0, 0.0

    def start(self, engine, moment) -> None:
        engine.heartbeat.listeners.append(self.enter)
        self.begun = self.since = time.process_time()

    def enter(self, phase: str) -> None:
        if phase == "reading":  # on the other thread
            return
        now = time.process_time()
        self.phases[self.phase] += now - self.since
        self.phase, self.since = phase, now

    def after_step(self, engine, moment, result) -> None:
        if moment.step % BLOCK:
            return
        ours = time.process_time() - self.begun
        self.blocks.append((ours, self.bare.block()))
        if len(self.blocks) == WARM:
            self.phases.clear()
            self.bare.phases.clear()
        self.begun = self.since = time.process_time()

    def facts(self) -> dict:
        timed = self.blocks[WARM:]
        ours, bare = (1e3 * statistics.median(one[side] for one in timed) / BLOCK for side in (0, 1))
        steps = BLOCK * len(timed)
        ratios = [one / other for one, other in timed]
        ratio, quarter = statistics.median(ratios), max(1, len(ratios) // 4)
        drift = statistics.median(ratios[-quarter:]) / statistics.median(ratios[:quarter])
        parts = {
            name: [1e3 * side.get(name, 0.0) / steps for side in (self.phases, self.bare.phases)]
            for name in ("waiting for data", "forward", "backward", "update", "observing")
        }
        return {
            "ours_ms": ours,
            "bare_ms": bare,
            "ratio": ratio,
            "drift": drift,
            "parts_ms": parts,
            "blocks": len(timed),
        }


class Bare:
    """The same model in a loop of a few lines."""

    def __init__(self, config: RunConfig, execution: ExecutionConfig) -> None:
        self.config, self.window = config, config.window.build()
        model = config.model.model_copy(update={"vocabulary": 8192})
        self.model = Transformer(model, execution)
        initialise(self.model, model, config.seed)
        self.optimizer = adamw(self.model, config, torch.device("cpu"))
        self.noise, self.next = Noise(None, self.window), 0
        self.phases: dict[str, float] = defaultdict(float)

    def block(self) -> float:
        batches = []
        for _ in range(BLOCK):
            samples = range(self.next, self.next + self.config.batch.size)
            batches.append(torch.as_tensor(np.stack([self.noise.read(k).tokens for k in samples])).long())
            self.next = samples.stop
        begun = time.process_time()
        for tokens in batches:
            self.step(tokens)
        return time.process_time() - begun

    def step(self, tokens: torch.Tensor) -> None:
        times = [time.process_time()]
        loss = self.model(tokens, self.window.loss_rows, self.window.recent).objective / tokens.shape[0]
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        times.append(time.process_time())
        for name, first, last in zip(("forward", "backward", "update"), times[:-1], times[1:], strict=True):
            self.phases[name] += last - first


def alone(config: RunConfig, **keys) -> float:
    """Milliseconds of CPU time a bare step under other keys of ``execution``."""
    bare = Bare(config, ExecutionConfig(**keys))
    bare.block()
    return 1e3 * min(bare.block() for _ in range(3)) / BLOCK


def show(facts: dict) -> None:
    rows = [
        [name, f"{ours:.2f}", f"{bare:.2f}", f"{ours - bare:+.2f}"]
        for name, (ours, bare) in facts["parts_ms"].items()
    ]
    print(table(["ms of CPU time a step", "ours", "bare", "difference"], rows))
    print(
        f"ours {facts['ours_ms']:.1f}, bare {facts['bare_ms']:.1f}: ratio {facts['ratio']:.3f} (target 1.03)"
    )
    print(f"the last quarter of the steps over the first, both beside the bare loop's: {facts['drift']:.3f}")
    for name, ms in facts.get("switches_ms", {}).items():
        print(f"bare, {name:<24}{ms:9.1f}")


if __name__ == "__main__":
    run_script(main)
