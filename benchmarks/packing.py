"""What packing costs: beside an earlier checkout, and for one long document beside many short ones.

    python benchmarks/packing.py --against FOLDER       Hugging Face BPE, this checkout and another in turn
    python benchmarks/packing.py --long                 15 MB as one document and as 1,000, by each tokenizer

CPU-seconds of the whole process tree, start-up included, the best of --rounds; the text and the tokenizers are those
of `preprocess.py`. Outputs are compared byte for byte: with the other checkout's, and one long document's with the
library's encoding of it as a whole (--engine plain). Each row is written when it is measured, and the same command
goes on with the rows that are missing. "library" is a machine without gigatoken.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from options import options
from preprocess import Cost, prepare, text_file, timed, tokenizers, write

from megarc.errors import UserError, run_script
from megarc.report import table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WITHOUT_ENGINE = (
    "import runpy, sys; sys.modules['gigatoken'] = None; runpy.run_path({!r}, run_name='__main__')"
)
LONG = 15_000_000  # characters
SHORT = LONG // 1000
KINDS = {  # the tokenizer, and whether gigatoken is there
    "SentencePiece BPE, gigatoken": ("bpe", True),
    "SentencePiece BPE, library": ("bpe", False),
    "SentencePiece BPE that normalises, gigatoken": ("normalising", True),
    "SentencePiece BPE that normalises, library": ("normalising", False),
    "SentencePiece unigram, library": ("unigram", False),
    "Hugging Face BPE, gigatoken": ("huggingface", True),
    "Hugging Face BPE, library": ("huggingface", False),
    "bytes": ("bytes", True),
}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--long", action="store_true", help="one long document beside short ones")
    parser.add_argument("--rows", nargs="+", choices=KINDS, metavar="ROW", help="of --long, only these")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[40, 100], help="of text (40 100)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--work", type=Path, help="a folder that keeps text and tokenizers for the next time")
    parser.add_argument("--out", type=Path, help="(benchmarks/results/packing_*.json)")
    arguments = parser.parse_args()
    if arguments.long == bool(arguments.against):
        raise UserError("give --against FOLDER or --long")
    out = arguments.out or RESULTS / f"packing_{'long' if arguments.long else 'before'}.json"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles all modules
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        prepare(work, max(arguments.megabytes))
        (measure_long if arguments.long else measure_against)(work, arguments, out)
    rows = json.loads(out.read_text())["rows"]
    heads = list(next(iter(rows.values())))
    print(table(["", *heads], [[name, *(str(row[head]) for head in heads)] for name, row in rows.items()]))
    return 0


def measure_against(work: Path, arguments: argparse.Namespace, out: Path) -> None:
    """This checkout and another take turns on texts of several sizes."""
    found = kept(out)
    model = tokenizers(work)["huggingface"]
    for size in arguments.megabytes:
        name = f"{size} MB"
        if name in found["rows"]:
            continue
        text, load = text_file(work, size), os.getloadavg()[0]
        runs: dict[Path, list[Cost]] = {ROOT: [], arguments.against.resolve(): []}
        for _ in range(arguments.rounds):
            for checkout, costs in runs.items():
                costs.append(packed(checkout, text, str(model), work / f"by-{len(costs)}-{checkout.name}"))
        mine, other = (min(costs, key=lambda cost: cost.cpu_seconds) for costs in runs.values())
        same(*(work / f"by-0-{checkout.name}" for checkout in runs))
        found["rows"][name] = {
            "before, CPU-s": round(other.cpu_seconds, 2),
            "now, CPU-s": round(mine.cpu_seconds, 2),
            "now, ktok/CPU-s": round(mine.rate),
            "ratio": round(other.cpu_seconds / mine.cpu_seconds, 2),
            "peak MB before": round(other.peak_megabytes),
            "peak MB now": round(mine.peak_megabytes),
            "load before": round(load, 1),
        }
        write(out, found)


def measure_long(work: Path, arguments: argparse.Namespace, out: Path) -> None:
    """One document and 1,000 of the same text take turns; the library encodes the whole once."""
    found = kept(out)
    text = "".join(json.loads(line)["text"] for line in text_file(work, 25).open(encoding="utf-8"))[:LONG]
    inputs = {
        "one": lines(work / "one.jsonl", [text]),
        "many": lines(work / "many.jsonl", [text[at : at + SHORT] for at in range(0, LONG, SHORT)]),
    }
    wholes: dict[str, Cost] = {}
    for name, (kind, engine) in KINDS.items():
        if name in found["rows"] or (arguments.rows and name not in arguments.rows):
            continue
        model = kind if kind == "bytes" else str(tokenizers(work)[kind])
        costs: dict[str, list[Cost]] = {"one": [], "many": []}
        for _ in range(arguments.rounds):
            for what, path in inputs.items():
                costs[what].append(packed(ROOT, path, model, work / what, engine=engine))
        if kind not in wholes:
            wholes[kind] = packed(ROOT, inputs["one"], model, work / f"whole-{kind}", "--engine", "plain")
        whole = wholes[kind]
        same(work / "one", work / f"whole-{kind}")
        one, many = (min(costs[what], key=lambda cost: cost.cpu_seconds) for what in ("one", "many"))
        found["rows"][name] = {
            "1,000 documents, CPU-s": round(many.cpu_seconds, 2),
            "one, CPU-s": round(one.cpu_seconds, 2),
            "ratio": round(one.cpu_seconds / many.cpu_seconds, 2),
            "one, as a whole": round(whole.cpu_seconds, 2),
            "peak MB": round(one.peak_megabytes),
            "peak MB, as a whole": round(whole.peak_megabytes),
        }
        write(out, found)


def packed(checkout: Path, text: Path, model: str, prefix: Path, *more: str, engine: bool = True) -> Cost:
    tool = str(checkout / "data_tools" / "preprocess.py")
    start = [tool] if engine else ["-c", WITHOUT_ENGINE.format(tool)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(checkout), str(checkout / "data_tools")])
    arguments = ["--input", str(text), "--output-prefix", str(prefix), "--tokenizer-model", model]
    return timed(
        [sys.executable, *start, *arguments, "--no-shuffle", "--workers", "1", *more],
        prefix,
    )


def same(one: Path, other: Path) -> None:
    if not filecmp.cmp(f"{one}.bin", f"{other}.bin", shallow=False):
        raise RuntimeError(f"{one}.bin and {other}.bin differ")


def lines(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def kept(out: Path) -> dict[str, dict[str, dict[str, object]]]:
    """The rows of an earlier turn."""
    return json.loads(out.read_text()) if out.exists() else {"rows": {}}


if __name__ == "__main__":
    run_script(main)
