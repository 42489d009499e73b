"""Writes a report of runs: one HTML page with curves, differences, events and samples."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.report.run_page import HeldOutDetail, RunHistory

EXAMPLES = """examples:
  python launch/report.py runs/mine
  python launch/report.py runs/a runs/b runs/c --out comparison.html --csv comparison.csv
  python launch/report.py runs/a --targets 0 --sample 0        reads the run's files only, not its model

The page contains everything that it shows: it needs no network and no script. It shows loss by tokens, steps, FLOPs and
time; held-out loss by position in the window and by token frequency, and a sample (the newest checkpoint is scored on
--targets tokens of the run's own held-out corpus); learning rate, gradient norm, throughput, MFU, memory, batch and
noise scale; skipped steps and their samples; restarts; configuration differences; the environment. If tokenizers
differ, it shows losses in bits/byte only. See docs/report.md."""


def main() -> int:
    arguments = parser().parse_args()
    from megarc.atomic_write import written_atomically
    from megarc.report.run_page import csv_table, read_history, run_page, short_names, skipped_texts
    from megarc.science import MAKERS

    names = short_names(arguments.run)
    runs = [read_history(path, name) for path, name in zip(arguments.run, names, strict=True)]
    details = {run.name: detail(run, arguments) for run in runs}
    texts = {run.name: skipped_texts(run, MAKERS) for run in runs}
    html = run_page(runs, details, texts)
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(arguments.out) as file:
            file.write(html.encode())
        if arguments.csv:
            arguments.csv.parent.mkdir(parents=True, exist_ok=True)
            with written_atomically(arguments.csv) as file:
                file.write(csv_table(runs).encode())
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from None
    print(f"{arguments.out}: {len(html) / 1000:.0f} kB, {', '.join(names)}")
    if arguments.csv:
        print(f"{arguments.csv}: every line of metrics")
    return 0


def detail(run: RunHistory, arguments: argparse.Namespace) -> HeldOutDetail | str:
    """What the newest checkpoint makes of held-out text, or why that is not known."""
    from megarc.report.run_page import heldout_detail

    if not arguments.targets:
        return "not scored (--targets 0)"
    try:
        return heldout_detail(run.folder.path, arguments.targets, arguments.sample)
    except UserError as error:
        return f"not scored: {error}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=user_path, nargs="+", metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", type=user_path, default=Path("report.html"), metavar="FILE", help="the page (report.html)"
    )
    parser.add_argument("--csv", type=user_path, metavar="FILE", help="write every line of metrics there")
    parser.add_argument(
        "--targets",
        type=partial(whole_number, least=0),
        default=8000,
        help="held-out tokens to score; 0: none (8000)",
    )
    parser.add_argument(
        "--sample",
        type=partial(whole_number, least=0),
        default=120,
        help="tokens to write as a sample; 0: none (120)",
    )
    return parser


if __name__ == "__main__":
    run_script(main)
