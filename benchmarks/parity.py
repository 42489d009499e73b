"""Takes a few steps of a tiny model under every mix of parallelism, precision and variant; compares with one rank.

    python benchmarks/parity.py              the table's rows; minutes
    python benchmarks/parity.py --ranks 2    those that fit 2 ranks
    python benchmarks/parity.py --context    the rows of parallel.context; the others stay as they were measured
    python benchmarks/parity.py --variant muon mixers    the rows of these variants; the others stay as they are
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
from support.mixes import COMPARED, SHARED_WINDOWS, Mix, all_mixes, differences, mixes, run_mixes  # noqa: E402

from megarc.errors import UserError, run_script  # noqa: E402
from megarc.report import table  # noqa: E402

STEPS = 2
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "parity.json", ROOT / "docs" / "parity.md"
Row = list[str | int]
COLUMNS = ["tensor", "pipeline", "data", "ZeRO", "sequence", "precision", "variant", *COMPARED]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--ranks", type=int, default=8, help="at most so many (8)")
    parser.add_argument("--variant", nargs="+", help="the rows of these variants alone")
    parser.add_argument("--context", action="store_true", help="the rows of parallel.context alone")
    parser.add_argument("--all", action="store_true", help="every layout; nothing is written")
    arguments = parser.parse_args()
    listed = all_mixes(arguments.ranks) if arguments.all else mixes(arguments.ranks)
    if arguments.variant:
        unknown = set(arguments.variant) - {mix.variant for mix in listed}
        if unknown:
            raise UserError(f"--variant: no row has the variant {', '.join(sorted(unknown))}")
        listed = [mix for mix in listed if mix.variant in arguments.variant]
    if arguments.context:
        listed = SHARED_WINDOWS
    with tempfile.TemporaryDirectory() as scratch:
        # a variant's one rank may be another's row
        compared = dict.fromkeys([*listed, *(mix.one for mix in listed)])
        run_mixes(list(compared), Path(scratch), STEPS)
        found = {mix: differences(Path(scratch), mix) for mix in listed}
    rows = [row(mix, values) for mix, values in found.items()]
    print(table(COLUMNS, rows))
    if arguments.variant or arguments.context:
        write(replaced(rows), mark_so_far())
    elif not arguments.all:
        write(rows, mark_of("benchmarks/parity.py"))
    return 0


def row(mix: Mix, values: dict[str, float]) -> Row:
    sequence = "on" if mix.sequence else "off"
    variant = f"{mix.variant}, context {mix.context}" if mix.context > 1 else mix.variant
    keys = [mix.tensor, mix.pipeline, mix.data, mix.zero, sequence, mix.precision, variant]
    return [*keys, *(f"{values[name]:.1e}" for name in COMPARED)]


def replaced(rows: list[Row]) -> list[Row]:
    """Those of the results file, with ``rows`` for those of the same variants; in the table's order."""
    known = [list(one.values()) for one in json.loads(RESULTS.read_text())["mixes"]]
    place = COLUMNS.index("variant")
    kept = [one for one in known if one[place] not in {row[place] for row in rows}]
    return sorted(
        [*kept, *rows], key=lambda one: (one[0] * one[1] * one[2], one[:4], one[4] != "off", one[5:7])
    )


def mark_so_far() -> str:
    """The page's own: of the code that measured the oldest of its rows."""
    return next(line for line in PAGE.read_text().splitlines() if line.startswith("<!-- made by"))


def worst(rows: list[Row], precision: str) -> str:
    """The largest difference of each column."""
    found = [one for one in rows if one[COLUMNS.index("precision")] == precision]
    largest = {name: max(float(one[COLUMNS.index(name)]) for one in found) for name in COMPARED}
    return ", ".join(f"{name} {value:.1e}" for name, value in largest.items())


def write(rows: list[Row], mark: str) -> None:
    facts = [dict(zip(COLUMNS, line, strict=True)) for line in rows]
    RESULTS.write_text(json.dumps({"steps": STEPS, "mixes": facts}, indent=1) + "\n")
    PAGE.write_text(
        "# Parity: every layout against one process\n\n"
        "This page shows that parallelism, ZeRO and precision do not change what a run computes.\n\n"
        "```\npython benchmarks/parity.py     # measures the table and writes this page\n```\n\n"
        f"Each row trains a tiny [R | C] model for {STEPS} steps and compares it with one rank of the same precision\n"
        "(ZeRO 0 for fp32, ZeRO 1 for bf16). A figure is the largest relative difference. For the loss, the gradient\n"
        "norm and the held-out loss, it is the largest over the steps. For gradients and weights, it is the largest\n"
        "over the parameters: the norm of the difference divided by the norm. Gradients are compared through Adam's\n"
        "first moments, which are averages of the clipped gradients. `make test` repeats every row\n"
        "(`tests/train/engine/test_parity.py`).\n\n"
        "The column *variant* says what else the row tries. `tests/support/mixes.py` lists the keys:\n\n"
        "| variant | meaning |\n|---|---|\n"
        "| tied, untied | the head shares its matrix with the embedding, or has its own |\n"
        "| short_recent | a share of the samples has fewer rows of R |\n"
        "| uniform | all loss rows have the same weight |\n"
        "| weights, row_weights | loss rows have fractional weights; in row_weights, rows of R have weights too |\n"
        "| recent, documents, positions | the source gives each sample its rows of R, documents or positions |\n"
        "| rates | kinds of parameters have learning rates and weight decays of their own |\n"
        "| imported | the model has what other families need: biases, norms over all heads, scaled positions |\n"
        "| muon | the optimizer is Muon, and the weights are averaged |\n"
        "| completep | the parametrization is CompleteP, at four times the base width |\n"
        "| nested, nested_all | feed-forwards have three widths: one is drawn for a step, or each step trains all |\n"
        "| experts, packed_experts | feed-forwards are experts, balanced by a bias; with packed rows |\n"
        "| experts_loss | sigmoid scores, balanced by a loss, with documents; the first layer is dense |\n"
        "| experts_muon, experts_completep | experts under Muon and under CompleteP |\n"
        "| ..._over_2 | experts are distributed over two data ranks (parallel.expert) |\n"
        "| muon_nested | one width is drawn for a step, and Muon makes the rows of its updates equal |\n"
        "| mixers | the layers are ssm, crf, ssm_attention, attention |\n"
        "| mixers_documents | the same with documents, and each token mixes two transitions of crf |\n"
        "| mixers_muon | mixers, Muon, averaged weights, feed-forwards of three widths |\n"
        "| mixers_packed | mixers, packed rows, windows that change, a loss on R |\n"
        "| mixers_mix | mixers, a mix of windows, a loss on R, CompleteP |\n"
        "| packed | questions and answers share rows, each with its own R; tokens of questions have half the weight |\n"
        "| stages, mix | windows change from the first step to the second, or by sample; there is a loss on R |\n"
        "| packed_stages, packed_mix | both; packed_stages has a loss on R |\n"
        "| packed_task | a theory task beside packed rows; each sample has one of three R |\n"
        "| causal_heads | half of the heads see R causally; all have a sliding window |\n"
        "| causal_heads_documents | half of the heads see R causally; the samples have documents |\n"
        "| causal_heads_packed | causal heads, packed rows, windows that change, a loss on R, three widths a step |\n"
        "| causal_heads_mix | causal heads, a mix of windows, a loss on R |\n"
        "| causal_heads_packed_mix | the same in packed rows, with a sliding window, weights by segment, three widths "
        "a step |\n"
        "| sliding, packed_sliding | rows see no key further back than a sliding window |\n"
        "| packed_sliding_stages | packed_stages, a sliding window, weights by segment, an average of weights |\n"
        "| hidden_context | a causal model predicts hidden tokens of its context |\n"
        "| ..., context k | k ranks share the rows of each window |\n"
        "| ..._full, ..._selective | activations are recomputed; compared with one rank that keeps them |\n\n"
        f"The largest differences of all fp32 rows are: {worst(rows, 'fp32')}.\n"
        f"The largest differences of all bf16 rows are: {worst(rows, 'bf16')}.\n"
        "The test allows 1e-5 in fp32, and 3e-5 for gradients and weights: small gradients are sums of numbers that\n"
        "cancel, and a CPU takes them in another order if a rank has fewer samples.\n"
        "In bf16 it allows 1e-3 for losses, 5e-3 for norms, .08 for gradients and .04 for weights. For mixers it\n"
        "allows three times that, and 6e-3 for held-out losses ([mixers.md](mixers.md) says why). A gradient that is\n"
        "lost differs by 1.\n\n"
        f"{mark}\n\n" + table(COLUMNS, rows, markdown=True) + "\n"
    )


if __name__ == "__main__":
    run_script(main)
