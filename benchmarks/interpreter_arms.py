"""What an interpreter in the text is worth: four arms on a task that a small model can't do in its head.

    python benchmarks/interpreter_arms.py --folder runs/interpreter

The task is the product of two three-digit numbers. Arms differ in what stands between question and answer in the
training text, and in who writes the output while generating:

    text only                                   123*456   56088
    text and code                               123*456 <in:python>123*456</in>   56088
    transcripts                                 123*456 <in:python>123*456</in><out>56088</out>   56088
    transcripts, interpreter at generation      the same model, the output by the real interpreter

Every arm has the same model, window, steps and batch, so the same FLOPs; shorter texts show more problems. Held-out
problems are pairs of numbers that no training text asks for. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from megarc.corpus import (
    PackRequest,
    PackSettings,
    Segment,
    Tokenizer,
    TranscriptTokenizer,
    load_tokenizer,
    pack_and_join,
    read_ids,
    write_marked,
)
from megarc.errors import UserError, run_script
from megarc.inference import Sampling, generate
from megarc.interpreter.languages import open_languages
from megarc.interpreter.live import Machine, write_together
from megarc.interpreter.sandbox import open_sandbox
from megarc.progress import progress
from megarc.report import table
from megarc.train import load_model

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "interpreter" / "multiply.yaml"
PROBLEMS = 100_000  # of the training text; there are 729,000 pairs
COLUMNS = ("right", "right code", "right of 5 digits", "right of 6 digits")
ANSWER = re.compile(r"= (\d+)\n")


@dataclass(frozen=True)
class Arm:
    """``parts``: which of code and output the text holds; ``weight``: of its output in the loss."""

    name: str
    parts: tuple[str, ...]
    weight: float = 1.0
    interpreter: bool = False

    @property
    def corpus(self) -> str:
        return "-".join(("text", *self.parts))

    def run(self, seed: int) -> str:
        return f"{self.corpus}-weight-{self.weight:g}-seed-{seed}"


ARMS = (
    Arm("text only", ()),
    Arm("text and code", ("code",)),
    Arm("transcripts", ("code", "output")),
    Arm("transcripts, interpreter at generation", ("code", "output"), interpreter=True),
    Arm("same, output without loss", ("code", "output"), weight=0.0, interpreter=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where corpora and runs live")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="of initial values and order (0 1)"
    )
    parser.add_argument("--problems", type=int, default=256, help="held-out problems (256)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "interpreter_arms.json")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of every run, such as length='9 steps'"
    )
    arguments = parser.parse_args()
    folder, tokenizer = arguments.folder, load_tokenizer("bytes")
    for parts in {arm.parts for arm in ARMS}:
        make_corpus(folder, parts)
    machine = Machine(open_sandbox(), open_languages(["python"]))
    rows, results = [], {}
    with progress("arms", len(ARMS) * len(arguments.seeds), unit="arms") as bar:
        for arm in ARMS:
            found = []
            for seed in arguments.seeds:
                train(folder, arm, seed, arguments.overrides)
                found.append(score(folder / arm.run(seed), arm, tokenizer, machine, arguments.problems))
                bar.advance(1, right=f"{found[-1]['right']:.3f}")
            means = [statistics.mean(one[what] for one in found) for what in COLUMNS]
            seeds = " ".join(f"{one['right']:.3f}" for one in found)
            rows.append([arm.name, *(f"{mean:.3f}" for mean in means), seeds])
            results[arm.name] = found
    facts = {"problems": arguments.problems, "seeds": arguments.seeds, "overrides": arguments.overrides}
    arguments.out.write_text(json.dumps({**facts, "shares": results}, indent=1) + "\n")
    print(table(["arm", *COLUMNS, "right by seed"], rows))


def document(left: int, right: int, parts: Sequence[str]) -> str:
    """A question, its work and its answer, as marked text; outputs are those that Python gives."""
    segments = [Segment("text", question(left, right))]
    if "code" in parts:
        segments.append(Segment("code", f"{left}*{right}", "python"))
    if "output" in parts:
        segments.append(Segment("output", f"{left * right}\n"))
    segments.append(Segment("text", f"= {left * right}\n"))
    return write_marked(segments)


def question(left: int, right: int) -> str:
    return f"{left}*{right}\n"


def problems(count: int, *, heldout: bool) -> list[tuple[int, int]]:
    """Pairs of numbers; one pair in ten is held out, by its own number."""
    chance = random.Random(f"heldout {heldout}")
    found: list[tuple[int, int]] = []
    while len(found) < count:
        pair = chance.randrange(100, 1000), chance.randrange(100, 1000)
        if ((pair[0] * 7919 + pair[1] * 104729) % 10 == 0) == heldout:
            found.append(pair)
    return found


def make_corpus(folder: Path, parts: tuple[str, ...]) -> None:
    prefix = folder / "-".join(("text", *parts))
    if prefix.with_suffix(".json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = prefix.with_suffix(".jsonl")
    with source.open("w") as file:
        for pair in problems(PROBLEMS, heldout=False):
            file.write(json.dumps({"text": document(*pair, parts)}) + "\n")
    settings = PackSettings(transcripts=True, append_end_of_document=True)
    pack_and_join(PackRequest(inputs=[str(source)], prefix=prefix, tokenizer="bytes", settings=settings, workers=1,
                              say=lambda line: print(line, file=sys.stderr)))  # fmt: skip


def train(folder: Path, arm: Arm, seed: int, overrides: Sequence[str]) -> None:
    """A run of the arm; one that is finished is left as it is."""
    run = folder / arm.run(seed)
    state = run / "state.json"
    if state.exists() and json.loads(state.read_bytes()).get("state") == "finished":
        return
    weights = f"{{weights: {{output: {arm.weight}}}}}"
    source = f"data.train=[{{kind: transcripts, path: {folder / arm.corpus}, options: {weights}}}]"
    command = [sys.executable, str(HERE.parent / "launch" / "pretrain.py"), "--config", str(CONFIG)]
    command += [source, f"folder={run}", f"seed={seed}", *overrides]
    log = run.with_suffix(".log")
    begun = time.monotonic()
    with log.open("wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise UserError(f"the run {run} ended with {code}; {log} says why")
    print(f"{run.name}: trained in {time.monotonic() - begun:.0f} s", file=sys.stderr)


def score(run: Path, arm: Arm, tokenizer: Tokenizer, machine: Machine, count: int) -> dict[str, float]:
    """Shares of held-out problems, drawn greedily: ``COLUMNS``.

    A prompt is other held-out problems with their answers, so that R is as full as in training, and the question.
    """
    saved = load_model(run)
    window = saved.config.window.build()
    asked = problems(count, heldout=True)
    shown = problems(count + 8, heldout=True)[-8:]
    marked = TranscriptTokenizer(tokenizer)
    before: list[int] = []
    for pair in shown:
        before += [*marked.encode(document(*pair, arm.parts)).tolist(), tokenizer.end_of_document]
    prompts = [
        [*before[-(window.recent + 1) :], *tokenizer.encode(question(*pair)).tolist()] for pair in asked
    ]
    greedy = Sampling(temperature=0, stop=tokenizer.end_of_document, refresh=window.stride)
    if arm.interpreter:
        together = write_together(saved.model, prompts, window, 48, tokenizer, machine, greedy)
        texts = [one.ids for one in together]
    else:
        texts = generate(saved.model, torch.tensor(prompts), window, 48, greedy).tolist()
    verdicts = []
    for prompt, text, (left, other) in zip(prompts, texts, asked, strict=True):
        written = read_ids(text[len(prompt) :], tokenizer)
        code = next((one.text for one in written if one.kind == "code"), "")
        answer = ANSWER.search(tokenizer.decode(text[len(prompt) :]))
        right = answer is not None and int(answer[1]) == left * other
        verdicts.append((right, code == f"{left}*{other}", left * other < 100_000))
    short = [right for right, _, few in verdicts if few]
    long = [right for right, _, few in verdicts if not few]
    shares = [[right for right, _, _ in verdicts], [code for _, code, _ in verdicts], short, long]
    return {what: statistics.mean(share) for what, share in zip(COLUMNS, shares, strict=True)}


if __name__ == "__main__":
    run_script(main)
