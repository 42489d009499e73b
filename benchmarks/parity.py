"""Takes a few steps of a tiny model under every mix of parallelism, precision and variant; compares with one rank.

    python benchmarks/parity.py              the table's rows; minutes
    python benchmarks/parity.py --ranks 2    those that fit 2 ranks
    python benchmarks/parity.py --all        every layout that fits 8 ranks, printed only

Accumulation, clipping, weighted losses and z-loss are at work. Printed and written to docs/parity.md and
benchmarks/results/parity.json: the largest relative difference to one rank of the same precision, of losses,
gradient norms, held-out losses, every parameter's gradient and every final weight. The rows themselves stand in
tests/support/mixes.py; `tests/train/engine/test_parity.py` takes the same steps whenever the tests run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from options import options  # noqa: E402
from stale import mark_of  # noqa: E402
from support.mixes import COMPARED, Mix, all_mixes, differences, mixes, run_mixes  # noqa: E402

from megarc.errors import run_script  # noqa: E402
from megarc.report import table  # noqa: E402

STEPS = 2
COLUMNS = ["tensor", "pipeline", "data", "ZeRO", "sequence", "precision", "variant", *COMPARED]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--ranks", type=int, default=8, help="at most so many (8)")
    parser.add_argument("--all", action="store_true", help="every layout; nothing is written")
    arguments = parser.parse_args()
    listed = all_mixes(arguments.ranks) if arguments.all else mixes(arguments.ranks)
    with tempfile.TemporaryDirectory() as scratch:
        run_mixes(listed, Path(scratch), STEPS)
        found = {mix: differences(Path(scratch), mix) for mix in listed}
    print(table(COLUMNS, [row(mix, values) for mix, values in found.items()]))
    if not arguments.all:
        write(found)
    return 0


def row(mix: Mix, values: dict[str, float]) -> list[str | int]:
    sequence = "on" if mix.sequence else "off"
    keys = [mix.tensor, mix.pipeline, mix.data, mix.zero, sequence, mix.precision, mix.variant]
    return [*keys, *(f"{values[name]:.1e}" for name in COMPARED)]


def worst(found: dict[Mix, dict[str, float]], precision: str) -> str:
    """The largest difference of each column."""
    rows = [values for mix, values in found.items() if mix.precision == precision]
    return ", ".join(f"{name} {max(values[name] for values in rows):.1e}" for name in COMPARED)


def write(found: dict[Mix, dict[str, float]]) -> None:
    rows = [row(mix, values) for mix, values in found.items()]
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    facts = [dict(zip(COLUMNS, line, strict=True)) for line in rows]
    (results / "parity.json").write_text(json.dumps({"steps": STEPS, "mixes": facts}, indent=1) + "\n")
    (ROOT / "docs" / "parity.md").write_text(
        "# Parity: every mix against one process\n\n"
        f"`python benchmarks/parity.py` wrote this page: a tiny [R | C] model, {STEPS} steps, against one\n"
        "rank of the same precision (fp32: ZeRO 0, bf16: ZeRO 1). Each figure is the largest relative difference over\n"
        "steps, or over parameters by name: the norm of the difference over the norm. Gradients are Adam's first\n"
        "moments, the mean of the steps' clipped gradients. `make test` takes the same steps of every row again\n"
        "(`tests/train/engine/test_parity.py`).\n\n"
        "Variants: head and embedding tied or untied; and, tied, samples of which a share has fewer rows of R\n"
        "(short_recent), without weights (uniform), with fractional weights, of all rows too (row_weights), and with\n"
        "rows of R, documents or positions that their source gives sample by sample.\n\n"
        f"fp32, worst of all rows: {worst(found, 'fp32')}.\n"
        f"bf16, worst of all rows: {worst(found, 'bf16')}.\n"
        "Allowed: 1e-5 in fp32; in bf16 1e-3 for losses, 5e-3 for norms, .08 for gradients, .04 for weights. A\n"
        f"gradient that gets lost differs by 1.\n\n{mark_of('benchmarks/parity.py')}\n\n"
        + table(COLUMNS, rows, markdown=True)
        + "\n"
    )


if __name__ == "__main__":
    run_script(main)
