"""What the demo shows: answers, scores, a sample, pictures, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arms import Arm
from scoring import CONTEXTS, Piece, by_context, heldout, measure, right_answers, under_other_masks
from scripts import run

from megarc.inference import probe_window
from megarc.model import cost_of
from megarc.progress import human
from megarc.report import loss_by_context as context_picture
from megarc.report import loss_curves, mask_picture, probe_facts, probe_tables, probe_words, table
from megarc.train import find_checkpoint, run_config
from megarc.window import Window

Found = Mapping[tuple[str, str], Any]

_TARGETS = 40_000
_CONTEXT_TARGETS = 12_000
_PROBE_TARGETS = 8_000
_LADDER_TARGETS = 10_000


def score(
    chase: Sequence[Arm], text: Sequence[Arm], probed: Sequence[Arm], corpus: Path, at_once: int
) -> Found:
    """Everything that is measured: ``{(what, the arm's label): result}``."""
    windows = {arm.label: window_of(arm) for arm in text}
    stride = min(window.stride for window in windows.values())
    scored = {label: Window(w.recent, w.causal, stride) for label, w in windows.items()}
    first = max(CONTEXTS[-1], *(window.first_target for window in scored.values()))
    targets, fewer = (range(first, first + count) for count in (_TARGETS, _CONTEXT_TARGETS))
    recents = sorted({0, *(windows[arm.label].recent for arm in probed)})
    start = max(probe_window(windows[arm.label], recents).first_target for arm in probed)
    few = range(start, start + _PROBE_TARGETS)
    pieces = [
        *(Piece(("heldout", arm.label), len(targets), heldout, (arm.folder, corpus, scored[arm.label], targets))
          for arm in text),
        *(Piece(("context", arm.label), len(CONTEXTS) * len(fewer), by_context, (arm.folder, corpus, fewer))
          for arm in text),
        *(Piece(("probe", arm.label), 4 * len(few), under_other_masks, (arm.folder, corpus, recents, few))
          for arm in probed),
        *(Piece(("right", arm.label), 8_000, right_answers, (arm.folder,)) for arm in chase),
    ]  # fmt: skip
    return measure(sorted(pieces, key=lambda piece: -piece.targets), at_once)


def window_of(arm: Arm) -> Window:
    return run_config(find_checkpoint(arm.folder)).window.build()


def who_is_right(arms: Sequence[Arm], found: Found) -> None:
    """The share of right answers of each arm on functions that it has never seen."""
    rows = [
        [arm.label, str(window_of(arm)), f"{right['one_step']:.3f}", f"{right['three_steps']:.3f}"]
        for arm in arms
        for right in [found["right", arm.label]]
    ]
    print(table(["mask", "window", "right on f(s)", "right on f(f(f(s)))"], rows))
    print(
        """
R holds a function f. C asks for f(s) and for f(f(f(s))). Both models have the same size, data and steps; only
the mask differs. With [R | C], the rows of R see the rows after them, so that they can compute f(f(s)) before
C asks for it. A causal mask makes this slower to learn, but not impossible: from larger initial values
(model.initial_std=0.1) both models learn the task, and [R | C] stays ahead by .017 nats an answer (docs/recipes.md)."""
    )


def text_scores(arms: Sequence[Arm], found: Found, folder: Path) -> None:
    """The table of the arms; written as JSON too."""
    rows = []
    for arm in arms:
        checkpoint = find_checkpoint(arm.folder)
        samples, window, score = checkpoint.standing.samples, window_of(arm), found["heldout", arm.label]
        flops = samples * cost_of(run_config(checkpoint).model, window).training_flops
        rows.append(
            [arm.label, human(samples * window.rows), human(samples * window.stride), human(flops),
             f"{score.nats_per_token:.3f}", f"{score.bits_per_token:.3f}",
             None if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}"]
        )  # fmt: skip
    columns = ["model", "tokens processed", "predicted", "FLOPs", "nats/token", "bits/token", "bits/byte"]
    print(table(columns, rows))
    facts = {
        arm.label: {"nats_per_token": score.nats_per_token, "bits_per_byte": score.bits_per_byte,
                    "tokens": score.tokens}
        for arm in arms for score in [found["heldout", arm.label]]
    }  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(_honest_words(*arms, min(window_of(arm).stride for arm in arms)))


def _honest_words(ours: Arm, overlapping: Arm, plain: Arm, stride: int) -> str:
    checkpoint, window = find_checkpoint(ours.folder), window_of(ours)
    parameters = human(cost_of(run_config(checkpoint).model, window).parameters)
    predictions = human(checkpoint.standing.samples * window.stride)
    return f"""
All models are scored on the same {_TARGETS} held-out tokens, each with 65 to 128 tokens before it (windows overlap,
stride {stride}). The number of windows is equal, so the compute is about equal, but the data is not: "{plain.label}"
read twice as many different tokens and made twice as many predictions. At this scale, where no model has read
enough, that alone puts it ahead. The fair comparison is "{overlapping.label}" against "{ours.label}":
the same windows and the same targets. {parameters} parameters and {predictions} predictions cannot show whether R is
worth its cost: more than a few dozen tokens of context hardly lower the loss here (demo/plots/context.png). The table
shows that everything works, and how to measure it."""


def ladder(arms: Sequence[Arm], folder: Path) -> None:
    """n-grams, compressors and the arms, by the command that anyone may type; written as JSON and a picture too."""
    text = folder / "text"
    runs = [word for arm in arms for word in ("--run", arm.folder)]
    files = ["--json", folder / "ladder.json", "--plot", folder / "plots" / "ladder.png"]
    corpora = ["--corpus", text / "train", "--heldout", text / "heldout"]
    run("launch/ladder.py", *corpora, *runs, "--tokens", _LADDER_TARGETS, *files)
    print(
        """
n-grams have read the whole training text. After a minute of training a small model has not, and n-grams may stand
below it. docs/ladder.md says what each row is."""
    )


def what_they_make_of_r(arms: Sequence[Arm], found: Found, folder: Path) -> None:
    """Each arm under the others' masks and with other text in R, on the same targets, and what that means."""
    probes = {arm.label: found["probe", arm.label] for arm in arms}
    print(f"{probe_tables(probes)}\n\n{probe_words(probes)}")
    facts = {label: probe_facts(one) for label, one in probes.items()}
    (folder / "probe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def sample(arm: Arm) -> None:
    """A text from the model, by the command that anyone may type."""
    run("launch/generate.py", "--run", arm.folder, "--prompt", "def main(", "--tokens", 160)


def pictures(chase: Sequence[Arm], text: Sequence[Arm], found: Found, folder: Path) -> None:
    """Mask, loss curves, loss against context."""
    plots = folder / "plots"
    mask_picture(window_of(chase[0]), plots / "mask.png")
    loss_curves({arm.label: arm.run.metrics for arm in text}, plots / "loss.png")
    curves = {
        arm.label: [(x, score.nats_per_token) for x, score in found["context", arm.label]] for arm in text
    }
    context_picture(curves, plots / "context.png")
    loss_curves({arm.label: arm.run.metrics for arm in chase}, plots / "chase.png", against="step")
    for name, what in (
        ("mask.png", "the mask of the pointer task"),
        ("loss.png", "loss of the three models on text"),
        ("context.png", "loss against context length"),
        ("chase.png", "loss of the pointer task"),
        ("ladder.png", "simple predictors and the models, in the talk's form"),
    ):
        print(f"  {plots / name!s:<24} {what}")


def which_to_use() -> None:
    """Two sentences; docs/recipes.md has the comparisons that they rest on."""
    print(
        """Use [R | C] where an answer follows from several steps through a given text, as in result 1: the given
text is R, the answer is C. Use a causal model that predicts every row for running text, as in result 2; for
pairs of question and answer, compare the two: in most settings they tie, or the causal model is ahead.
docs/when-to-use.md rests on comparisons at equal FLOPs, the finalists with tuned rates and several seeds.
megarc compare makes the same comparison on your own corpus."""
    )


def what_next(folder: Path, arm: Arm) -> None:
    """The last lines."""
    print(
        f"""  {folder / "scores.json"!s:<24} the first table on text, for programs
  {folder / "ladder.json"!s:<24} the ladder of losses, for programs
  {folder / "probe.json"!s:<24} the tables of masks and of R, for programs
  {folder / "text"!s:<24} tokenizer and packed corpora
  {folder / "runs"!s:<24} one folder per run: config.yaml, metrics.jsonl, tensorboard/, checkpoints/

What to type next (after: source .venv/bin/activate)
  tensorboard --logdir {folder / "runs"}
  megarc generate --run {arm.folder} --prompt 'import '
  docs/tutorial.md trains a model on your own text, step by step.
  With a GPU, add     precision=bf16 execution.compile=true    (deepspeed starts one rank for each GPU)
  For a cluster       megarc pretrain --config FILE --dry-run --world-size 1024 --rank 0"""
    )
