"""Reads 10,000 wrong configurations: each must end in a run that could start, or in words that help.

    python benchmarks/fuzz_configs.py                     10,000 mutants; 3 minutes of one core
    python benchmarks/fuzz_configs.py --go-on             from where an earlier one was stopped
    python benchmarks/fuzz_configs.py --show 50           50 messages drawn by lot, to be read by a person

A mutant differs from a small run's file in some keys (values of another type, out of range, in other units, YAML's
rarer forms), in a key's name, in its text, or by overrides on the command line; every key of the tree takes part, as
the classes of the configuration declare it, those of the first source of a list too. It
goes as far as a start goes before anything is built: reading, the timeline, the data's order, ranks, DeepSpeed's
settings. A traceback, 20 seconds without an end, or 4 GiB of memory is a failure; so is a message that names no key (or
line), or does not say what would be right. Written to benchmarks/results/fuzz_configs.json.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_values import Mutant, Tree
from options import options

from megarc.config import load
from megarc.errors import UserError, run_script
from megarc.model import cost_of
from megarc.parallel import Topology
from megarc.progress import progress
from megarc.report import table
from megarc.science import MAKERS
from megarc.train import RunConfig, open_heldout, open_train, resolve
from megarc.train.engine.deepspeed_settings import deepspeed_settings
from megarc.train.schedule import Timeline

HANG_SECONDS, MEMORY = 20, 4 << 30
_KEPT_EVERY = 250
BASE = {
    "folder": "runs/fuzz",
    "length": "100 steps",
    "seed": 1,
    "precision": "fp32",
    "window": {"recent": 24, "causal": 16, "stride": 16},
    "model": {"layers": 2, "hidden": 32, "heads": 4},
    "data": {"train": [{"kind": "pointer_chase"}], "valid": [{"kind": "pointer_chase", "options": {"seed": 9}}]},
    "batch": {"size": 8, "micro": 2},
    "optimizer": {"lr": 0.003, "clip": 0.5},
    "schedule": {"kind": "cosine", "warmup": "2 steps"},
    "checkpoint": {"every": "50 steps"},
    "parallel": {"zero": 1},
    "logging": {"every": 1, "tensorboard": False},
}  # fmt: skip
_REMEDY = re.compile(
    r"; |\b(use|give|must|should|write|did you mean|needs?|leave|make|start a|correct|change|--keys|choose|set|"
    r"expected|at least|at most|"
    r"put it in quotes|remove|is required|or more|lies? between|is given twice|not valid YAML)\b"
)


def main() -> int:
    parser = options(__doc__, "fuzz_configs.json")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--go-on", action="store_true", help="add to a result that is not whole yet")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N messages drawn by lot")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (memory() + MEMORY, resource.RLIM_INFINITY))
    command = f"python benchmarks/fuzz_configs.py --mutants {arguments.mutants} --seed {arguments.seed}"
    found = Found()
    if arguments.go_on and arguments.out.exists():
        earlier = json.loads(arguments.out.read_bytes())
        if earlier["command"] == command:
            found = Found.of(earlier)
    campaign(arguments.mutants, arguments.seed, found, lambda: found.write(arguments.out, command))
    outcomes, failures, messages = found.outcomes, found.failures, found.messages
    chance = random.Random(arguments.seed)
    for text in chance.sample(messages, min(arguments.show, len(messages))):
        print(f"- {text}")
    names = sorted({name for some in outcomes.values() for name in some})
    print(
        table(
            ["mutants", *names],
            [[kind, *(some[name] for name in names)] for kind, some in sorted(outcomes.items())],
        )
    )
    if failures:
        raise UserError(f"{len(failures)} mutants ended badly:\n       " + "\n       ".join(failures[:20]))
    return 0


@dataclass
class Found:
    """Outcomes of the first ``mutants`` by their kind, what failed, and the messages of this start."""

    mutants: int = 0
    seconds: float = 0.0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, result: dict[str, Any]) -> Found:
        outcomes = {kind: Counter(some) for kind, some in result["outcomes"].items()}
        return cls(result["mutants"], result["seconds"], outcomes, result["failures"])

    def write(self, out: Path, command: str) -> None:
        result = {
            "command": command,
            "mutants": self.mutants,
            "seconds": round(self.seconds),
            "outcomes": {kind: dict(some) for kind, some in sorted(self.outcomes.items())},
            "failures": self.failures,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


def campaign(mutants: int, seed: int, found: Found, keep: Callable[[], None]) -> None:
    """Adds to what was found until there are so many mutants; ``keep`` is called from time to time, and at the end."""
    tree = Tree(RunConfig, BASE)
    begun = time.monotonic() - found.seconds
    with tempfile.TemporaryDirectory() as scratch, progress("mutants", mutants - found.mutants) as bar:
        path = Path(scratch) / "run.yaml"
        for number in range(found.mutants, mutants):
            mutant = tree.mutant(random.Random(f"{seed} {number}"))
            path.write_bytes(mutant.text)
            outcome, message = one(path, mutant, tree.keys)
            found.outcomes.setdefault(mutant.kind, Counter())[outcome] += 1
            if message:
                found.messages.append(message)
            if outcome not in ("could start", "refused"):
                found.failures.append(f"number {number}, {mutant.kind}, {mutant.keys}: {outcome}: {message}")
            bar.advance(1, bad=len(found.failures))
            found.mutants, found.seconds = number + 1, time.monotonic() - begun
            if found.mutants % _KEPT_EVERY == 0:
                keep()
    keep()


def one(path: Path, mutant: Mutant, keys: list[str]) -> tuple[str, str]:
    """How it ended, and in which words."""
    try:
        with hang_after():
            begin(load(RunConfig, path, mutant.overrides))
        return "could start", ""
    except UserError as error:
        text = str(error).replace(str(path), "run.yaml")
        return judged(text, mutant, keys), text
    except Exception as error:
        return f"BAD {type(error).__name__}", str(error)[:300]


def begin(config: RunConfig) -> None:
    """All that a start does before it builds anything."""
    timeline = Timeline.of(config)
    layout = config.parallel
    ranks = layout.expected or layout.tensor * layout.pipeline * layout.context * layout.expert * 2
    topology = Topology.fit(
        ranks,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        sequence=layout.sequence,
        context=layout.context,
    )
    stream = open_train(config, MAKERS)
    if config.data.valid:
        open_heldout(config, MAKERS)
    config = resolve(config, stream, topology)
    cost_of(config.model, config.window.build())
    timeline.batches.samples_before(timeline.total)
    micro = config.batch.micro_batch
    deepspeed_settings(config, micro, config.batch.size // (topology.data * micro), context=topology.context)


def judged(text: str, mutant: Mutant, keys: list[str]) -> str:
    """Whether the words name a key or a place, and what to do."""
    names = {part for key in [*mutant.keys, *keys] for part in (key, *key.split("."))}
    if not any(name in text for name in names) and "line" not in text and "unknown key" not in text:
        return "BAD without a key"
    return "refused" if _REMEDY.search(text) else "BAD without a remedy"


def memory() -> int:
    """Address space of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def hang_after(seconds: int = HANG_SECONDS) -> Iterator[None]:
    """Raises where the block has not ended by then."""

    def hang(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    run_script(main)
