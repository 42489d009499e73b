"""Statements proved by sampled tactic scripts, each checked by coqc.

    python benchmarks/coq_proofs.py --folder runs/coq

A small model learns statements of propositional logic with a proof of each (a search writes those for training), and
then writes scripts for statements that it has not seen. A script counts only where coqc compiles it and the theorem
rests on nothing: "Closed under the global context". The arm beside it draws as many tactics at random.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from megarc.corpus import PackRequest, PackSettings, Segment, load_tokenizer, pack_and_join, write_marked
from megarc.errors import UserError, run_script
from megarc.inference import Sampling, generate
from megarc.interpreter.languages import open_languages
from megarc.interpreter.sandbox import Limits, Program, Sandbox, open_sandbox
from megarc.progress import progress
from megarc.report import table
from megarc.train import load_model

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "interpreter" / "coq.yaml"
STATEMENTS = 8_000
ATOMS = "PQR"
ROOM = 110  # bytes of a proof at most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the corpus and the run live")
    parser.add_argument("--statements", type=int, default=32, help="held-out statements (32)")
    parser.add_argument("--samples", type=int, default=6, help="scripts drawn for each (6)")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "coq_proofs.json")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the run")
    arguments = parser.parse_args()
    _ = open_languages(["coq"])
    training, heldout = statements(STATEMENTS, arguments.statements)
    train(arguments.folder, training, arguments.overrides)
    sandbox = open_sandbox(Limits(memory=2 << 30, seconds=60.0))
    drawn = {
        "model": sampled(arguments.folder / "run", heldout, arguments),
        "random tactics": [at_random(number, arguments.samples) for number in range(len(heldout))],
        "search, as in training": [[script] for _, script in heldout],
    }
    rows, results = [], {}
    for name, scripts in drawn.items():
        proved = checked(sandbox, [statement for statement, _ in heldout], scripts)
        first = sum(row[0] for row in proved) / len(proved)
        any_of = sum(any(row) for row in proved) / len(proved)
        rows.append([name, len(scripts[0]), f"{first:.3f}", f"{any_of:.3f}"])
        results[name] = {"samples": len(scripts[0]), "first": first, "any": any_of}
    arguments.out.write_text(json.dumps({"statements": len(heldout), "proved": results}, indent=1) + "\n")
    print(table(["scripts by", "drawn", "proved by the first", "by any"], rows))


# ---- statements and proofs


@dataclass(frozen=True)
class Formula:
    """An atom, or two formulas joined by ``->``, ``/\\`` or ``\\/``."""

    sign: str
    left: Formula | None = None
    right: Formula | None = None

    def __str__(self) -> str:
        return self.sign if self.left is None else f"({self.left} {self.sign} {self.right})"


def statements(training: int, heldout: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Statements that the search can prove, with a proof; those held out stand in no training text."""
    chance = random.Random(0)
    found: dict[str, str] = {}
    while len(found) < training + heldout:
        goal = drawn_formula(chance, 3)
        script = prove([], goal, 0, 8)
        if script is not None and 12 < len(script) <= ROOM and len(str(goal)) <= 48:
            found.setdefault(str(goal), script)
    pairs = list(found.items())
    chance.shuffle(pairs)
    return pairs[heldout:], pairs[:heldout]


def drawn_formula(chance: random.Random, depth: int) -> Formula:
    if depth == 0 or chance.random() < 0.2:
        return Formula(chance.choice(ATOMS))
    sign = chance.choices(["->", "/\\", "\\/"], [3, 1, 1])[0]
    return Formula(sign, drawn_formula(chance, depth - 1), drawn_formula(chance, depth - 1))


def prove(known: list[tuple[str, Formula]], goal: Formula, fresh: int, depth: int) -> str | None:
    """A tactic script for ``goal`` from named facts, by a plain search backwards; None where it finds none."""
    for name, fact in known:
        if fact == goal:
            return f"exact {name}. "
    if depth == 0:
        return None
    for place, (name, fact) in enumerate(known):
        rest = known[:place] + known[place + 1 :]
        if fact.left is not None and fact.right is not None and fact.sign == "/\\":
            one, two = f"h{fresh}", f"h{fresh + 1}"
            after = prove([*rest, (one, fact.left), (two, fact.right)], goal, fresh + 2, depth - 1)
            return None if after is None else f"destruct {name} as [{one} {two}]. {after}"
        if fact.left is not None and fact.right is not None and fact.sign == "\\/":
            one = f"h{fresh}"
            halves = [
                prove([*rest, (one, half)], goal, fresh + 1, depth - 1) for half in (fact.left, fact.right)
            ]
            return (
                None if None in halves else f"destruct {name} as [{one}|{one}]. " + "".join(map(str, halves))
            )
    if goal.left is not None and goal.right is not None:
        if goal.sign == "->":
            after = prove([*known, (f"h{fresh}", goal.left)], goal.right, fresh + 1, depth - 1)
            return None if after is None else f"intro h{fresh}. {after}"
        if goal.sign == "/\\":
            halves = [prove(known, half, fresh, depth - 1) for half in (goal.left, goal.right)]
            return None if None in halves else "split. " + "".join(map(str, halves))
        for tactic, half in (("left. ", goal.left), ("right. ", goal.right)):
            if (after := prove(known, half, fresh, depth - 1)) is not None:
                return tactic + after
    for place, (name, fact) in enumerate(known):
        if fact.sign == "->" and fact.left is not None and fact.right == goal:
            rest = known[:place] + known[place + 1 :]
            if (after := prove(rest, fact.left, fresh, depth - 1)) is not None:
                return f"apply {name}. {after}"
    return None


def at_random(number: int, samples: int) -> list[str]:
    """Scripts of tactics drawn at random, of the kinds that proofs have."""
    chance = random.Random(number)

    def tactic(step: int) -> str:
        name = f"h{chance.randrange(max(1, step))}"
        return chance.choice([f"intro h{step}. ", "split. ", "left. ", "right. ", f"exact {name}. ", f"apply {name}. ",
                              f"destruct {name} as [h{step} h{step + 1}]. "])  # fmt: skip

    return ["".join(tactic(step) for step in range(chance.randint(2, 8))) for _ in range(samples)]


# ---- training, sampling, checking


def document(statement: str, script: str) -> str:
    return write_marked([Segment("text", f"{statement}\n"), Segment("code", script, "coq")])


def train(folder: Path, training: Sequence[tuple[str, str]], overrides: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run, prefix, source = folder / "run", folder / "proofs", folder / "proofs.jsonl"
    state = run / "state.json"
    if state.exists() and json.loads(state.read_bytes()).get("state") == "finished":
        return
    if not prefix.with_suffix(".json").exists():
        source.write_text("".join(json.dumps({"text": document(*pair)}) + "\n" for pair in training))
        settings = PackSettings(transcripts=True, append_end_of_document=True)
        pack_and_join(PackRequest(inputs=[str(source)], prefix=prefix, tokenizer="bytes", settings=settings,
                                  workers=1, say=lambda line: print(line, file=sys.stderr)))  # fmt: skip
    command = [sys.executable, str(HERE.parent / "launch" / "pretrain.py"), "--config", str(CONFIG)]
    command += [f"data.train=[{{kind: transcripts, path: {prefix}}}]", f"folder={run}", *overrides]
    with run.with_suffix(".log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        raise UserError(f"the run {run} ended with {code}; {run.with_suffix('.log')} says why")


def sampled(run: Path, heldout: Sequence[tuple[str, str]], arguments: argparse.Namespace) -> list[list[str]]:
    """Scripts for each statement; the first is drawn greedily, the others at the temperature."""
    saved, tokenizer = load_model(run), load_tokenizer("bytes")
    window = saved.config.window.build()
    begins = tokenizer.reserved["<code>"]
    scripts: list[list[str]] = [[] for _ in heldout]
    with progress("writing scripts", len(heldout) * arguments.samples, unit="scripts") as bar:
        for number, (statement, _) in enumerate(heldout):
            ids = [tokenizer.end_of_document, *tokenizer.encode(f"{statement}\n").tolist(), begins]
            ids += tokenizer.encode("coq\n").tolist()
            for count, temperature in ((1, 0.0), (arguments.samples - 1, arguments.temperature)):
                sampling = Sampling(temperature=temperature, seed=number, stop=tokenizer.reserved["</code>"])
                prompts = torch.tensor([ids] * count)
                for text in generate(saved.model, prompts, window, ROOM + 1, sampling).tolist():
                    scripts[number].append(tokenizer.decode(text[len(ids) :]))
            bar.advance(arguments.samples)
    return scripts


def checked(sandbox: Sandbox, goals: Sequence[str], scripts: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Whether coqc takes each script as a proof of its statement."""
    jobs = [(goal, script) for goal, row in zip(goals, scripts, strict=True) for script in row]
    with ThreadPoolExecutor(2) as pool, progress("checking by coqc", len(jobs), unit="scripts") as bar:

        def check(job: tuple[str, str]) -> bool:
            found = proves(sandbox, *job)
            bar.advance(1)
            return found

        verdicts = iter(list(pool.map(check, jobs)))
    return [[next(verdicts) for _ in row] for row in scripts]


def proves(sandbox: Sandbox, goal: str, script: str) -> bool:
    """By coqc itself, in the sandbox: the file compiles, and what it proves rests on nothing.

    A script that could say more than tactics do (end the proof, assume the goal) is refused unread.
    """
    sentences = [one.strip() for one in script.split(".") if one.strip()]
    if not sentences or any(one.split()[0] not in _TACTICS for one in sentences):
        return False
    source = f"Theorem t : forall {' '.join(ATOMS)} : Prop, {goal}.\nProof. intros {' '.join(ATOMS)}. {script}Qed.\n"
    source += "Print Assumptions t.\n"
    shell = 'cat > t.v && coqc -q t.v && echo "checked: $?"'
    etc = Path("/etc/ocamlfind.conf")
    readable = ((str(etc), str(etc)),) if etc.exists() else ()
    process = sandbox.start(
        Program(
            ("/bin/sh", "-c", f"head -c {len(source.encode())} | {{ {shell}; }}"), {}, readable, merged=True
        )
    )
    try:
        heard = process.exchange(source.encode(), lambda _: False, sandbox.limits.seconds)
    finally:
        process.stop()
    said = heard.output.decode(errors="replace")
    return "Closed under the global context" in said and "checked: 0" in said


_TACTICS = {"intro", "split", "left", "right", "exact", "apply", "destruct"}


if __name__ == "__main__":
    run_script(main)
