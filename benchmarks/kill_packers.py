"""SIGKILL of packers, and of their workers, at random moments: what is left is nothing or a whole.

    python benchmarks/kill_packers.py --kills 50

Each round starts the packer on work that the last kill left, kills it at a random
moment, and looks: a corpus with a manifest must be byte for byte the one of an
undisturbed run; a killed worker must be reported. Now and then a round runs to its end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from options import options

from megarc.corpus import load_manifest
from megarc.errors import UserError, run_script
from megarc.progress import progress

HERE = Path(__file__).parent
SUFFIXES = (".bin", ".idx", ".json")


def main() -> None:
    parser = options(__doc__, "kill_packers.json")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = campaign(Path(folder), arguments.kills, random.Random(arguments.seed))
    result = {
        "kills": arguments.kills,
        "seed": arguments.seed,
        "outcomes": dict(counts),
        "failures": failures,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if failures:
        raise UserError(f"{len(failures)} rounds ended badly")


def campaign(folder: Path, kills: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    text = folder / "text.jsonl"
    with text.open("w") as file:
        for number in range(80_000):
            file.write(json.dumps({"text": f"line {number} of a document. " * (number % 23)}) + "\n")
    start(text, folder / "expected").wait()
    expected = {suffix: Path(f"{folder / 'expected'}{suffix}").read_bytes() for suffix in SUFFIXES}
    counts: Counter[str] = Counter()
    failures = []
    with progress("killing", kills) as bar:
        for number in range(kills):
            outcome = one(text, folder / "c", expected, chance)
            counts[outcome] += 1
            if outcome.startswith("BAD"):
                failures.append(f"kill {number}: {outcome}")
            bar.advance(1, bad=len(failures))
        process = start(text, folder / "c")
        process.communicate()
        if process.returncode or state(folder / "c", expected) != "whole":
            failures.append("after the kills the same command does not finish the work")
    return counts, failures


def one(text: Path, prefix: Path, expected: dict[str, bytes], chance: random.Random) -> str:
    """One round: start, wait, kill, look."""
    process = start(text, prefix)
    time.sleep(chance.uniform(0.2, 1.2))
    workers = psutil.Process(process.pid).children() if process.poll() is None else []
    if workers and chance.random() < 0.4:
        os.kill(chance.choice(workers).pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        found = state(prefix, expected)
        if found.startswith("BAD") or process.returncode not in (0, 2) or "Traceback" in said:
            return f"BAD: worker killed: {found}, exit code {process.returncode}: {said[-300:]}"
        when = "reported" if "a worker died" in said else "after its work"
        outcome = f"worker killed ({when}), {found}"
    else:
        process.kill()
        process.communicate()
        outcome = state(prefix, expected)
        outcome = outcome if outcome.startswith("BAD") else f"packer killed, {outcome}"
    if "whole" in outcome:  # begin again
        for suffix in SUFFIXES:
            Path(f"{prefix}{suffix}").unlink()
    return outcome


def state(prefix: Path, expected: dict[str, bytes]) -> str:
    if load_manifest(prefix) is None:
        return "nothing"
    same = all(Path(f"{prefix}{suffix}").read_bytes() == content for suffix, content in expected.items())
    return "whole" if same else "BAD: a manifest, but other files than those of an undisturbed run"


def start(text: Path, prefix: Path) -> subprocess.Popen[str]:
    tool = [sys.executable, str(HERE.parent / "data_tools" / "preprocess.py"), "--input", str(text)]
    tool += ["--output-prefix", str(prefix), "--tokenizer-model", "bytes", "--append-eod", "--workers", "2"]
    return subprocess.Popen(tool, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    run_script(main)
