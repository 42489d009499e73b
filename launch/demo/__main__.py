"""The main job on text that every machine has: Python's own library. `make demo` runs this."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from arms import Arm, train
from show import pictures, sample, text_scores, what_next, what_they_make_of_r, who_is_right
from text import prepare

from megarc.errors import run_script
from megarc.progress import clock

EXAMPLES = """examples:
  make demo
  python launch/demo          the same, once installed; what is there already is used again
  rm -r demo; make demo       anew
  python launch/demo --text   the text alone"""

DEMO = Path("demo")
CAUSAL = "window.recent=0"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="store_true", help="make the text, tokenizer and corpora only")
    arguments = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[2])
    if arguments.text:
        prepare(DEMO / "text")
        return 0
    begun = time.monotonic()
    chase = [
        arm("chase-rc", "[R|C]", "chase"),
        arm("chase-causal", "causal", "chase", CAUSAL, "window.causal=40"),
    ]
    text = [
        arm("text-rc", "[R|C] s = c", "text"),
        arm("text-overlap", "causal s = c", "text", CAUSAL, "window.causal=128"),
        arm("text-causal", "causal s = L", "text", CAUSAL, "window.causal=128", "window.stride=128"),
    ]
    heading("The text: Python's own library")
    prepare(DEMO / "text")
    heading("Training: five runs that differ in their window alone")
    train([*text, *chase])  # the long ones first
    heading("1. The mask decides: following pointers")
    who_is_right(chase)
    heading("2. On text: equal compute, the same held-out tokens")
    curves = text_scores(text, DEMO / "text" / "heldout", DEMO)
    heading("3. What the models make of R: the same targets under other masks, and with other text in R")
    what_they_make_of_r([text[0], text[2]], DEMO / "text" / "heldout", DEMO)
    heading("4. A sample from the [R|C] model")
    sample(text[0])
    heading("Where everything lies")
    pictures(chase, text, curves, DEMO)
    what_next(DEMO, text[0])
    print(f"\nThe demo took {clock(time.monotonic() - begun)}.")
    return 0


def arm(name: str, label: str, config: str, *overrides: str) -> Arm:
    return Arm(DEMO / "runs" / name, label, Path(f"configs/demo/{config}.yaml"), overrides)


def heading(words: str) -> None:
    print(f"\n{words}\n{'=' * len(words)}", flush=True)


if __name__ == "__main__":
    run_script(main)
