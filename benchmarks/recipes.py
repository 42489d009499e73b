"""The campaign: every setting of configs/recipes/, every arm at equal FLOPs, each tuned alike, every try kept.

    python benchmarks/recipes.py                     all settings, from where they were stopped; hours
    python benchmarks/recipes.py chase text          these
    python benchmarks/recipes.py --only-write        the page and the JSON from what is there so far

Rules, the same for every arm: FLOPs by the exact mask (matrices, attention, the head on predicted rows), one grid of
peak learning rates and warm-ups on one seed, five seeds of the best, the same held-out targets with no less context,
two-sided p-values of differences paired by seed. Writes docs/recipes.md (below its mark) and
benchmarks/results/recipes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "launch"))

from compare import finals_table, tries_table, words  # noqa: E402
from stale import mark_of  # noqa: E402

from megarc.atomic_write import written_atomically  # noqa: E402
from megarc.config import load  # noqa: E402
from megarc.errors import UserError, run_script  # noqa: E402
from megarc.science import MAKERS  # noqa: E402
from megarc.science.recipes import Campaign, CompareConfig  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "recipes.md", ROOT / "benchmarks" / "results" / "recipes.json"
MARK = "<!-- below: python benchmarks/recipes.py -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="of configs/recipes/; none: all")
    parser.add_argument("--only-write", action="store_true", help="train nothing")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of every setting that win"
    )
    arguments = parser.parse_args()
    os.chdir(ROOT)
    known = {path.stem: path for path in sorted((ROOT / "configs" / "recipes").glob("*.yaml"))}
    for name in arguments.settings:
        if name not in known:
            raise UserError(f"no setting '{name}' in configs/recipes/; there are {', '.join(known)}")
    chosen = arguments.settings or list(known)
    for name in [] if arguments.only_write else chosen:
        command = [sys.executable, "launch/compare.py", "--config", str(known[name]), *arguments.set]
        done = subprocess.run(command, check=False)
        if done.returncode:
            return done.returncode
    write({name: load(CompareConfig, known[name], arguments.set) for name in chosen})
    return 0


def write(settings: dict[str, CompareConfig]) -> None:
    """The tables of all settings that have a result; those of other settings in the JSON stay."""
    facts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, config in settings.items():
        if not (config.folder / "results.jsonl").exists():
            continue
        campaign = Campaign(config, MAKERS, lambda run: True)
        left = [one for one in (*campaign.grid(), *campaign.finals())
                if one not in {result.key for result in campaign.results}]  # fmt: skip
        state = "whole" if not left else f"{len(left)} runs of the campaign are still to be made"
        before, results = facts.get(name, {}), [asdict(result) for result in campaign.results]
        # A table keeps the mark of the code that made it until it gets another result.
        same = "mark" in before and before["results"] == json.loads(json.dumps(results))
        facts[name] = {
            "mark": before["mark"] if same else mark_of("benchmarks/recipes.py"),
            "state": state,
            "words": words(campaign),
            "finals": finals_table(campaign, markdown=True) if campaign.best() else "",
            "tries": tries_table(campaign, markdown=True),
            "results": results,
        }
    if not facts:
        raise UserError("no setting has a result yet; run python benchmarks/recipes.py")
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    above = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    parts = [section(name, found) for name, found in sorted(facts.items())]
    with written_atomically(PAGE) as file:
        file.write((above + MARK + "\n" + "\n".join(parts)).encode())
    print(f"{PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} are written")


def section(name: str, found: dict[str, Any]) -> str:
    """What the page says of a setting; a setting in which no arm has its whole grid has no table of the best."""
    parts = [f"## {name}", f"`python benchmarks/recipes.py {name}`: {found['state']}.", found["words"]]
    if found["finals"]:
        parts += [
            "Each arm's best, over its seeds (R both ways: what seeing R both ways saves, nats a target):",
            found["mark"], found["finals"],
        ]  # fmt: skip
    return "\n\n".join([*parts, "Every try:", found["mark"], found["tries"]]) + "\n"


if __name__ == "__main__":
    run_script(main)
