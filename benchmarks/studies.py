"""The talk's claims: runs the studies of configs/studies/ and writes docs/theory.md's table from their results.

    python benchmarks/studies.py                   all studies, from where they were stopped
    python benchmarks/studies.py order sums        these
    python benchmarks/studies.py --only-write      the page and the JSON from what is there so far

Each study is `python launch/study.py --config configs/studies/NAME.yaml`. A study with a run that failed is written
too, and says so. Writes docs/theory.md (below its mark) and benchmarks/results/studies.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

from stale import mark_of  # noqa: E402

from megarc.atomic_write import written_atomically  # noqa: E402
from megarc.config import load  # noqa: E402
from megarc.errors import UserError, run_script  # noqa: E402
from megarc.report import table  # noqa: E402
from megarc.science.studies import GridConfig  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "theory.md", ROOT / "benchmarks" / "results" / "studies.json"
MARK = "<!-- below: python benchmarks/studies.py -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="of configs/studies/; none: all")
    parser.add_argument("--only-write", action="store_true", help="run nothing")
    parser.add_argument("--jobs", metavar="N", help="runs at once")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    known = {path.stem: path for path in sorted((ROOT / "configs" / "studies").glob("*.yaml"))}
    for name in arguments.studies:
        if name not in known:
            raise UserError(f"no study '{name}' in configs/studies/; there are {', '.join(known)}")
    chosen = arguments.studies or list(known)
    codes = []
    for name in [] if arguments.only_write else chosen:
        more = ["--jobs", arguments.jobs] if arguments.jobs else []
        command = [sys.executable, "launch/study.py", "--config", f"configs/studies/{name}.yaml", *more]
        print(f"\n{name}", flush=True)
        codes.append(subprocess.run(command, check=False).returncode)
    write({name: load(GridConfig, known[name]) for name in known})
    return max(codes, default=0)


def write(studies: dict[str, GridConfig]) -> None:
    """The table and a section a study, of all that have a result here or in the JSON."""
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, study in studies.items():
        file = study.folder / "result.json"
        if not file.exists():
            continue
        found, before = json.loads(file.read_bytes()), kept.get(name, {})
        # A table keeps the mark of the code that made it until it gets another result.
        same = before.get("result") == found
        kept[name] = {"mark": before["mark"] if same else mark_of("benchmarks/studies.py"), "result": found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    above = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    mark = next((one["mark"] for one in kept.values()), "<!-- nothing measured -->")
    overview = table(["claim", "what the study shows", "n", "command"], [
        [study.claim, kept[name]["result"]["words"] if name in kept else "not run yet",
         kept[name]["result"]["seeds"] if name in kept else None, f"`python benchmarks/studies.py {name}`"]
        for name, study in studies.items()
    ], markdown=True)  # fmt: skip
    parts = [_section(name, studies[name], one) for name, one in kept.items() if name in studies]
    with written_atomically(PAGE) as page:
        page.write((above + MARK + "\n" + "\n".join([mark, "", overview, "", *parts])).encode())
    print(f"{PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} are written")


def _section(name: str, study: GridConfig, kept: dict[str, Any]) -> str:
    found = kept["result"]
    rows = table(found["columns"], found["rows"], markdown=True)
    runs = len(found["values"])
    state = f"{runs} runs, all finished" if not found["missing"] + found["failed"] else f"{runs} runs finished; " + (
        f"failed: {', '.join(found['failed']) or 'none'}; not finished: {len(found['missing'])}"
    )  # fmt: skip
    said = f"measure `{found['measure']}`, {found['seeds']} seeds, {state}"
    return (
        f"## Study: {name}\n\n`python benchmarks/studies.py {name}`: {said}.\n\n{study.expected}\n\n"
        f"{found['words']}\n\n{kept['mark']}\n\n{rows}\n"
    )


if __name__ == "__main__":
    run_script(main)
