"""The demo's measurements of trained models: pieces of work that run side by side, a process and a thread each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from megarc.corpus import IndexedCorpus, load_manifest
from megarc.inference import Score, evaluate, loss_by_context, probe, probe_window
from megarc.progress import progress
from megarc.science import PointerChase, accuracy
from megarc.train import load_model
from megarc.window import Window

CONTEXTS = (8, 16, 32, 64, 128)
_FRESH_SEED = 1_000_003  # functions that no run has seen
_SAMPLES = 2048


@dataclass(frozen=True, slots=True)
class Piece:
    """``function(*arguments)``, about ``targets`` forward passes of a token; the result is kept under ``name``."""

    name: tuple[str, str]
    targets: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def measure(pieces: Sequence[Piece], at_once: int) -> dict[tuple[str, str], Any]:
    """The result of every piece; ``at_once`` of them run at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scoring"])  # torch is imported once, and each process begins as a copy
    found: dict[tuple[str, str], Any] = {}
    total = sum(piece.targets for piece in pieces)
    with progress("scoring", total, unit="tokens") as bar, ProcessPoolExecutor(at_once, context) as pool:
        waiting = {pool.submit(piece.function, *piece.arguments): piece for piece in pieces}
        for future in as_completed(waiting):
            piece = waiting[future]
            found[piece.name] = future.result()
            bar.advance(piece.targets)
    return found


def right_answers(run: Path) -> dict[str, float]:
    """The share of right answers on functions that the model has never seen."""
    saved = load_model(run)
    window = saved.config.window.build()

    def predict(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            logits = saved.model.logits(torch.as_tensor(tokens), slice(None), window.recent)
        return logits.argmax(-1).numpy()

    return accuracy(PointerChase(window, _FRESH_SEED), predict, _SAMPLES)


def heldout(run: Path, corpus: Path, window: Window, targets: range) -> Score:
    """The exact cross-entropy of ``targets``, read by ``window``."""
    manifest = load_manifest(corpus)
    per_token = manifest.text_bytes / manifest.tokens if manifest and manifest.text_bytes else None
    tokens = IndexedCorpus(corpus).tokens
    return evaluate(load_model(run).model, tokens, window, targets, bytes_per_token=per_token)


def by_context(run: Path, corpus: Path, targets: range) -> Sequence[tuple[float, Score]]:
    """The loss of ``targets`` when each has so many tokens before it."""
    saved = load_model(run)
    window = saved.config.window.build()
    return loss_by_context(saved.model, IndexedCorpus(corpus).tokens, window, CONTEXTS, targets)


def under_other_masks(run: Path, corpus: Path, recents: Sequence[int], targets: range) -> Any:
    """The loss of ``targets`` under other masks, and with other text in R."""
    saved = load_model(run)
    window = probe_window(saved.config.window.build(), recents)
    return probe(saved.model, IndexedCorpus(corpus).tokens, window, recents, targets)
