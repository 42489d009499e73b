"""What studies of many short trainings share: one process's groups, and results kept one by one."""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megarc.atomic_write import written_atomically

BYTES = {"train": ["demo/bytes/train"], "valid": ["demo/bytes/heldout"]}
"""The demo corpus as bytes: of few steps, a small vocabulary shows more than a large one."""


def study(text: str | None, train_all: Callable[[float], None], report: Callable[[], None]) -> int:
    """The page of a study: ``train_all`` is given the seconds after which it begins no training."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="trains nothing")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begins no training after so long")
    arguments = parser.parse_args()
    if not arguments.report:
        train_all(arguments.seconds)
    report()
    return 0


@contextmanager
def alone() -> Iterator[Any]:
    """The groups of this one process; ``BYTES`` is packed where it is not there yet."""
    import torch

    from megarc.parallel import connect, disconnect, meet
    from megarc.rank_environment import read_rank_environment

    for name in ("train", "heldout"):
        if not Path(f"demo/bytes/{name}.json").exists():
            script = [
                "data_tools/preprocess.py",
                "--input",
                f"@demo/text/{name}.list",
                "--tokenizer-model",
                "bytes",
            ]
            subprocess.run([sys.executable, *script, "--output-prefix", f"demo/bytes/{name}"], check=True)
    logging.getLogger("megarc").setLevel(logging.WARNING)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    try:
        yield connect(meet(read_rank_environment()), "cpu")
    finally:
        disconnect()


def done(results: Path) -> dict[str, Any]:
    """What was measured so far, by name."""
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    return found


def keep(results: Path, name: str, values: Any) -> None:
    """Adds one, at once: a study that is stopped loses only what it was at."""
    with written_atomically(results) as file:
        file.write((json.dumps(done(results) | {name: values}, indent=1) + "\n").encode())
