"""What the demo shows: answers, scores, a sample, pictures, and what to type next."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from arms import Arm

from megarc.corpus import IndexedCorpus, load_manifest
from megarc.inference import Score, evaluate, loss_by_context, probe, probe_window
from megarc.model import cost_of
from megarc.progress import human, progress
from megarc.report import loss_by_context as context_picture
from megarc.report import loss_curves, mask_picture, probe_facts, probe_tables, probe_words, table
from megarc.science import PointerChase, accuracy
from megarc.train import SavedModel, find_checkpoint, load_model, run_config
from megarc.window import Window

Curves = Mapping[str, Sequence[tuple[float, Score]]]

_FRESH_SEED = 1_000_003  # functions that no run has seen
_SAMPLES = 2048
_TARGETS = 40_000
_CONTEXTS = (8, 16, 32, 64, 128)
_CONTEXT_TARGETS = 12_000
_PROBE_TARGETS = 8_000


def who_is_right(arms: Sequence[Arm]) -> None:
    """The share of right answers of each arm on functions that it has never seen."""
    rows = []
    for arm in arms:
        saved = load_model(arm.folder)
        window = saved.config.window.build()

        def predict(
            tokens: npt.NDArray[np.int64], saved: SavedModel = saved, window: Window = window
        ) -> npt.NDArray[np.int64]:
            with torch.inference_mode():
                logits = saved.model.logits(torch.as_tensor(tokens), slice(None), window.recent)
            return logits.argmax(-1).numpy()

        right = accuracy(PointerChase(window, _FRESH_SEED), predict, _SAMPLES)
        rows.append([arm.label, str(window), f"{right['one_step']:.3f}", f"{right['three_steps']:.3f}"])
    print(table(["mask", "window", "right on f(s)", "right on f(f(f(s)))"], rows))
    print(
        """
R holds a function f, C asks for f(s) and for f(f(f(s))). Same model, data, steps; only the mask differs.
In [R|C] the rows of R look ahead and work out f(f(s)) before they are asked. A causal mask makes that
slower to learn, not impossible: docs/journal.md has what longer runs and other initial values do."""
    )


def text_scores(arms: Sequence[Arm], corpus: Path, folder: Path) -> Curves:
    """The table of the arms, written as JSON too; loss against context of each."""
    tokens, manifest = IndexedCorpus(corpus).tokens, load_manifest(corpus)
    per_token = manifest.text_bytes / manifest.tokens if manifest and manifest.text_bytes else None
    saved = {arm.label: load_model(arm.folder) for arm in arms}
    windows = {label: one.config.window.build() for label, one in saved.items()}
    stride = min(window.stride for window in windows.values())
    scored = {label: Window(w.recent, w.causal, stride) for label, w in windows.items()}
    first = max(_CONTEXTS[-1], *(window.first_target for window in scored.values()))
    targets, fewer = (range(first, first + count) for count in (_TARGETS, _CONTEXT_TARGETS))
    scores: dict[str, Score] = {}
    curves: dict[str, Sequence[tuple[float, Score]]] = {}
    work = len(saved) * (len(targets) + len(_CONTEXTS) * len(fewer))
    with progress("scoring", work, unit="tokens") as bar:
        for label, one in saved.items():
            scores[label] = evaluate(
                one.model, tokens, scored[label], targets, bytes_per_token=per_token, progress=bar.advance
            )
            curves[label] = loss_by_context(
                one.model, tokens, windows[label], _CONTEXTS, fewer, progress=bar.advance
            )
    rows = []
    for label, one in saved.items():
        samples, window, score = one.standing.samples, windows[label], scores[label]
        flops = samples * cost_of(one.config.model, window).training_flops
        rows.append(
            [label, human(samples * window.rows), human(samples * window.stride), human(flops),
             f"{score.nats_per_token:.3f}", f"{score.bits_per_token:.3f}",
             None if score.bits_per_byte is None else f"{score.bits_per_byte:.3f}"]
        )  # fmt: skip
    columns = ["arm", "tokens processed", "predicted", "FLOPs", "nats/token", "bits/token", "bits/byte"]
    print(table(columns, rows))
    facts = {label: {"nats_per_token": score.nats_per_token, "bits_per_byte": score.bits_per_byte,
                     "tokens": score.tokens} for label, score in scores.items()}  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(_honest_words(len(targets), stride))
    return curves


def _honest_words(targets: int, stride: int) -> str:
    return f"""
The same {targets} held-out tokens for all, each seen with 65 to 128 tokens before it (windows overlap,
stride {stride}). Equal windows are about equal compute, not equal data: causal s = L read twice the
different tokens and made twice the predictions, and at this scale, far from having read enough, that
alone puts it ahead. The fair pair is causal s = c against [R|C] s = c: same windows, same targets. A
million parameters and half a million predictions cannot show whether R is worth its cost: beyond a few
dozen tokens, context hardly lowers the loss here (demo/plots/context.png). What they show is that all of
it runs, and how to measure it."""


def what_they_make_of_r(arms: Sequence[Arm], corpus: Path, folder: Path) -> None:
    """Each arm under the others' masks and with other text in R, on the same targets, and what that means."""
    tokens = IndexedCorpus(corpus).tokens
    saved = {arm.label: load_model(arm.folder) for arm in arms}
    recents = sorted({0, *(one.config.window.recent for one in saved.values())})
    windows = {label: probe_window(one.config.window.build(), recents) for label, one in saved.items()}
    first = max(window.first_target for window in windows.values())
    targets = range(first, first + _PROBE_TARGETS)
    probes = {
        label: probe(one.model, tokens, windows[label], recents, targets) for label, one in saved.items()
    }
    print(f"{probe_tables(probes)}\n\n{probe_words(probes)}")
    facts = {label: probe_facts(found) for label, found in probes.items()}
    (folder / "probe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def sample(arm: Arm) -> None:
    """A text from the model, by the command that anyone may type."""
    command = ["launch/generate.py", "--run", str(arm.folder), "--prompt", "def main(", "--tokens", "160"]
    print("$ python " + " ".join(f"'{word}'" if "(" in word else word for word in command), flush=True)
    subprocess.run([sys.executable, *command], check=True)


def pictures(chase: Sequence[Arm], text: Sequence[Arm], curves: Curves, folder: Path) -> None:
    """Mask, loss curves, loss against context."""
    plots = folder / "plots"
    mask_picture(run_config(find_checkpoint(chase[0].folder)).window.build(), plots / "mask.png")
    loss_curves({arm.label: arm.run.metrics for arm in text}, plots / "loss.png")
    context_picture(
        {label: [(x, score.nats_per_token) for x, score in points] for label, points in curves.items()},
        plots / "context.png",
    )
    loss_curves({arm.label: arm.run.metrics for arm in chase}, plots / "chase.png", against="step")
    for name, what in (
        ("mask.png", "the mask of the pointer task"),
        ("loss.png", "loss of the three arms on text"),
        ("context.png", "loss against context length"),
        ("chase.png", "loss of the pointer task"),
    ):
        print(f"  {plots / name!s:<24} {what}")


def what_next(folder: Path, arm: Arm) -> None:
    """The last lines."""
    print(
        f"""  {folder / "scores.json"!s:<24} the table above
  {folder / "text"!s:<24} tokenizer and packed corpora
  {folder / "runs"!s:<24} a folder a run: config.yaml, metrics.jsonl, tensorboard/, checkpoints/

What to type next (after: source .venv/bin/activate)
  tensorboard --logdir {folder / "runs"}
  python launch/generate.py --run {arm.folder} --prompt 'import '
  python data_tools/train_tokenizer.py --input YOUR/TEXT --output-prefix my/tokenizer --vocab-size 32000
  python data_tools/preprocess.py --input YOUR/TEXT --output-prefix my/train --append-eod \\
      --tokenizer-model my/tokenizer.model --workers 2
  deepspeed launch/pretrain.py --config configs/runs/talk.yaml folder=runs/mine \\
      'data.train=[{{path: my/train}}]'
  with a GPU, add     precision=bf16 execution.compile=true    (the launcher starts a rank for each GPU)
  for a cluster       python launch/pretrain.py --config FILE --dry-run --world-size 1024 --rank 0
  README.md says where to read on."""
    )
