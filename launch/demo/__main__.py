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
from scripts import cores, resource
from show import pictures, sample, score, text_scores, what_next, what_they_make_of_r, who_is_right
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


def main() -> int:
    arguments = parser().parse_args()
    if (resources() / "setup.py").exists():  # a checkout: its configurations name files below it
        os.chdir(resources())
    if arguments.text:
        prepare(DEMO / "text")
        return 0
    begun = time.monotonic()
    chase = [
        arm("chase-rc", "[R | C]", "chase"),
        arm("chase-causal", "causal", "chase", CAUSAL, "window.causal=40"),
    ]
    text = [
        arm("text-rc", "[R | C], overlapping windows", "text"),
        arm("text-overlap", "causal, overlapping windows", "text", CAUSAL, "window.causal=128"),
        arm("text-causal", "causal, no overlap", "text", CAUSAL, "window.causal=128", "window.stride=128"),
    ]
    at_once = min(cores(), len(text) + len(chase))
    heading("Phase 1 of 3: the text is Python's own library")
    prepare(DEMO / "text")
    heading(f"Phase 2 of 3: training five models that differ only in their window, {at_once} at a time")
    train([*text, *chase], at_once)  # the long ones first
    heading("Phase 3 of 3: measuring them on held-out data")
    corpus, probed = DEMO / "text" / "heldout", [text[0], text[2]]
    found = score(chase, text, probed, corpus, at_once)
    heading("Result 1. The mask decides: a task of following pointers")
    who_is_right(chase, found)
    heading("Result 2. On text: equal compute, the same held-out tokens")
    text_scores(text, found, DEMO)
    heading(
        "Result 3. What the models make of R: the same targets under other masks, and with other text in R"
    )
    what_they_make_of_r(probed, found, DEMO)
    heading("Result 4. A sample from the [R | C] model")
    sample(text[0])
    heading("Files and pictures")
    pictures(chase, text, found, DEMO)
    what_next(DEMO, text[0])
    print(f"\nThe demo took {clock(time.monotonic() - begun)}.")
    return 0


def arm(name: str, label: str, config: str, *overrides: str) -> Arm:
    return Arm(DEMO / "runs" / name, label, resource(f"configs/demo/{config}.yaml"), overrides)


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
