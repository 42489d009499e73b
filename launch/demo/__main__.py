"""Trains and compares five small models on text that every machine has: Python's own library."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Several processes share the cores: with one thread each, none waits for another's threads.
os.environ["OMP_NUM_THREADS"] = "1"

sys.path.append(str(Path(__file__).parents[1]))
import _needs  # noqa: F401  (ends where the packages are not there)
from arms import Arm, train
from scripts import cores, cpu_seconds, resource
from show import (
    ladder,
    pictures,
    sample,
    score,
    text_scores,
    what_next,
    what_they_make_of_r,
    which_to_use,
    who_is_right,
)
from text import prepare

from megarc.command import examples, resources
from megarc.errors import run_script
from megarc.progress import clock

EXAMPLES = """examples:
  make demo
  python launch/demo          the same, once installed; results that are there already are used again
  rm -r demo; make demo       from the beginning
  megarc demo --text          the text, tokenizer and corpora only"""

DEMO = Path("demo")
CAUSAL = "window.recent=0"


def arm(name: str, label: str, config: str, *overrides: str) -> Arm:
    return Arm(DEMO / "runs" / name, label, resource(f"configs/demo/{config}.yaml"), overrides)


# What is compared. All of it together takes about 450 CPU-seconds; an arm on text about 65.
POINTERS = (
    arm("pointers-recent-causal", "[R | C]", "chase"),
    arm("pointers-causal", "causal", "chase", CAUSAL, "window.causal=40"),
)
TEXT = (
    arm("text-recent-causal", "[R | C], overlapping windows", "text"),
    arm("text-causal-overlapping", "causal, overlapping windows", "text", CAUSAL, "window.causal=128"),
    arm("text-causal", "causal, no overlap", "text", CAUSAL, "window.causal=128", "window.stride=128"),
)
PROBED = (TEXT[0], TEXT[2])


def main() -> int:
    arguments = parser().parse_args()
    if (resources() / "setup.py").exists():  # a checkout: its configurations name files below it
        os.chdir(resources())
    if arguments.text:
        prepare(DEMO / "text")
        return 0
    begun = time.monotonic()
    at_once = min(cores(), len(TEXT) + len(POINTERS))
    announce(1, "make a tokenizer and a corpus from Python's own library")
    prepare(DEMO / "text")
    announce(
        2,
        f"train {len(TEXT) + len(POINTERS)} small models that differ only in their window, {at_once} at a time",
    )
    train([*TEXT, *POINTERS], at_once)  # the long ones first
    announce(3, "measure the models on held-out data")
    found = score(POINTERS, TEXT, PROBED, DEMO / "text" / "heldout", at_once)
    announce(4, "show the results")
    heading("Result 1. The mask decides how fast a task of following pointers is learned")
    who_is_right(POINTERS, found)
    heading("Result 2. On text: equal compute, the same held-out tokens")
    text_scores(TEXT, found, DEMO)
    heading("Result 3. The ladder of losses: simple predictors and the models on the same held-out tokens")
    ladder(TEXT, DEMO)
    heading(
        "Result 4. What the models make of R: the same targets under other masks, and with other text in R"
    )
    what_they_make_of_r(PROBED, found, DEMO)
    heading("Result 5. A sample from the [R | C] model")
    sample(TEXT[0])
    heading("Which to use")
    which_to_use()
    heading("Files and pictures")
    pictures(POINTERS, TEXT, found, DEMO)
    what_next(DEMO, TEXT[0])
    print(f"\nThe demo took {clock(time.monotonic() - begun)} ({cpu_seconds():.0f} CPU-seconds).")
    return 0


def announce(phase: int, what: str) -> None:
    heading(f"Phase {phase} of 4: {what}")


def heading(words: str) -> None:
    print(f"\n{words}\n{'=' * len(words)}", flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="store_true", help="make the text, tokenizer and corpora only")
    return parser


if __name__ == "__main__":
    run_script(main)
