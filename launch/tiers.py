"""Trains a stack of tiers, bottom to top: roll-outs, the tier that reads them, its roll-outs, the next tier."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed
from megarc.errors import run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.tiers import StackConfig, StackPlan

SCRIPTS = Path(__file__).parent
EXAMPLES = """examples:
  python launch/tiers.py --config configs/tiers/two.yaml
  python launch/tiers.py --config configs/tiers/three.yaml --stages       the commands, nothing is run
  python launch/tiers.py --config configs/tiers/two.yaml --controls       the stack against its controls
  python launch/tiers.py --config configs/tiers/two.yaml folder=runs/mine tiers.top.writes.samples=8
  python launch/tiers.py --keys               every key: type, default, meaning

The same command resumes where it stopped: in the stage, at its newest checkpoint or shard."""


def main() -> int:
    arguments = parsed(parser())
    from megarc.config import load
    from megarc.key_reference import reference
    from megarc.tiers import StackPlan, command, run_stack, write_keys

    if arguments.keys:
        print(reference(tree()), end="")
        return 0
    plan = StackPlan(load(tree(), arguments.config, arguments.overrides))
    if arguments.stages:
        write_keys(plan.folder / "stack.yaml", plan.config)
        for stage in plan.stages():
            write_keys(stage.file, stage.config)  # so that its command can be typed
            words = command(plan, stage, SCRIPTS)
            print(
                f"{stage.name}:\n  {shlex.join(['python' if 'python' in words[0] else words[0], *words[1:]])}"
            )
        return 0
    took = run_stack(plan, SCRIPTS)
    heading("Leak test")
    leak_test(plan)
    heading("Held-out loss")
    scores(plan, took)
    if arguments.controls:
        heading("Controls")
        controls(plan)
    return 0


def tree() -> type[StackConfig]:
    """The keys that this page reads."""
    from megarc.tiers import StackConfig

    return StackConfig


def leak_test(plan: StackPlan) -> None:
    """Makes roll-outs again from windows whose tokens behind the boundary are others."""
    from megarc.science import MAKERS
    from megarc.tiers import check_leaks

    for line in check_leaks(plan, MAKERS):
        print(line)


def scores(plan: StackPlan, took: Mapping[str, float]) -> None:
    """Each tier on the same held-out tokens, and where the time went."""
    from megarc.report import table
    from megarc.science import MAKERS
    from megarc.tiers import score_tiers

    rows = []
    found = score_tiers(plan, MAKERS)
    for name, losses in found.items():
        rows.append([name, losses.tokens, f"{losses.nats_per_token:.4f}", f"{losses.standard_error:.4f}"])
    print(table(["tier", "tokens", "nats/token", "+-"], rows))
    if took:
        whole = sum(took.values())
        rows = [[name, f"{seconds:.0f}", f"{100 * seconds / whole:.0f} %"] for name, seconds in took.items()]
        print("\n" + table(["stage", "seconds", "share"], rows))


def controls(plan: StackPlan) -> None:
    """The table, as markdown beside it, and the picture."""
    from megarc.atomic_write import written_atomically
    from megarc.report import gain_by_distance, table
    from megarc.science import MAKERS
    from megarc.tiers import run_controls

    result = run_controls(plan, MAKERS, SCRIPTS)
    columns, rows = result.table()
    print(table(columns, rows))
    print("\n" + result.words())
    written = plan.folder / "controls.md"
    with written_atomically(written) as file:
        file.write((table(columns, rows, markdown=True) + "\n").encode())
    picture = plan.folder / "gain.png"
    gain_by_distance(result.gains(), picture)
    print(f"\n{written}, {picture}")


def heading(words: str) -> None:
    print(f"\n{words}\n{'=' * len(words)}", flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=user_path, help="YAML file; see configs/tiers")
    parser.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    parser.add_argument(
        "--stages", action="store_true", help="print each stage's command, write its keys, and end"
    )
    parser.add_argument("--controls", action="store_true", help="then train and score the controls")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    return parser


if __name__ == "__main__":
    run_script(main)
