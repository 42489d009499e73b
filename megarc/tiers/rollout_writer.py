"""Who writes roll-outs: a tier of ours, or any Hugging Face causal model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import continuations
from megarc.tiers.config import ReadingConfig, RolloutsConfig, WritesConfig
from megarc.tiers.rollout_layout import Assembled, Layout, Tags, Tokens
from megarc.tiers.rollout_store import Written
from megarc.tiers.sampling import sampling_of
from megarc.train import RunConfig, SavedModel, find_checkpoint, load_model


class Writer(Protocol):
    """Writes K roll-outs of m tokens at the boundary that a text ends with."""

    @property
    def digest(self) -> str:
        """Of its checkpoint."""

    @property
    def vocabulary(self) -> int:
        """Ids lie below it."""

    def write(
        self, text: Tokens, below: Sequence[tuple[int, Tokens]], uniforms: npt.NDArray[np.float64]
    ) -> Written:
        """Tokens and log-probabilities [batch, K, m].

        Args:
            text: [batch, p], the last column the boundary's token; nothing behind it is known here.
            below: ``(tier, roll-outs [batch, K', m'])`` of the tiers that it reads.
            uniforms: [batch, K, m] in [0, 1): the draws.
        """


class TierWriter:
    """A trained run.

    Args:
        tags: the ids that frame what it reads.
        known: tokens of the tokenizer; None: as many as the model has ids.

    Raises:
        UserError: where a roll-out is longer than its window has rows that learned to predict.
    """

    def __init__(
        self,
        saved: SavedModel,
        writes: WritesConfig,
        tags: Tags,
        device: torch.device,
        known: int | None = None,
    ) -> None:
        self.saved, self.tags, self.device = saved, tags, device
        self.window = saved.config.window.build()
        self.reading = reading_of(saved.config)
        self.vocabulary = saved.config.model.tokens
        self.sampling = sampling_of(writes, tags, known, self.vocabulary)
        self.digest = checkpoint_digest(saved.checkpoint)
        if writes.tokens > self.window.stride:
            raise UserError(
                f"roll-outs of {writes.tokens} tokens from {saved.checkpoint}: its window {self.window} has "
                f"{self.window.stride} rows that learned to predict; make writes.tokens no more"
            )

    def write(
        self, text: Tokens, below: Sequence[tuple[int, Tokens]], uniforms: npt.NDArray[np.float64]
    ) -> Written:
        """As ``Writer`` says."""
        if self.reading is None:
            # The newest tokens, the last of them on the first row from which all that is drawn bore loss.
            begun = text[:, -(self.window.rows - uniforms.shape[2] + 1) :]
            recent, positions = min(self.window.recent, begun.shape[1] - 1), None
        else:
            shown = assemble(self.reading, self.window.recent, self.tags, text, text.shape[1] - 1, below)
            begun, recent = shown.tokens, shown.recent
            positions = shown.positions if self.reading.positions == "boundary" else None
        tokens, likely = continuations(
            self.saved.model,
            torch.as_tensor(begun).to(self.device),
            recent,
            torch.as_tensor(uniforms),
            self.sampling,
            None if positions is None else torch.as_tensor(positions).to(self.device),
        )
        return tokens.cpu().numpy(), likely.float().cpu().numpy()


def open_writer(
    config: RolloutsConfig, tags: Tags, device: torch.device, tokenizer: str | None, known: int | None = None
) -> Writer:
    """The writer of a job.

    Args:
        tokenizer: digest of the one that the text was packed with.
        known: its tokens; None where unknown.

    Raises:
        UserError: where there is no checkpoint, or it cannot write so.
    """
    if config.huggingface:
        from megarc.tiers.huggingface import HuggingFaceWriter

        return HuggingFaceWriter(config.writer, config.writes, tags, device, tokenizer, known)
    return TierWriter(load_model(config.writer, device), config.writes, tags, device, known)


def assemble(
    reading: ReadingConfig,
    recent: int,
    tags: Tags,
    text: Tokens,
    boundary: int,
    below: Sequence[tuple[int, Tokens]],
) -> Assembled:
    """``text`` [batch, columns] with all that has room of the roll-outs ``below``."""
    framed = [tags.frame(tier, rollouts) for tier, rollouts in below]
    return Layout(recent, reading.history).assemble(text, boundary, framed)


def reading_of(config: RunConfig) -> ReadingConfig | None:
    """How a run reads roll-outs; None: it reads none."""
    for source in config.data.train:
        if source.kind == "rollouts":
            return build(ReadingConfig, source.options, "data.train")
    return None


def checkpoint_digest(path: Path) -> str:
    """Of a checkpoint's manifest, which names every file's digest."""
    return hashlib.sha256((find_checkpoint(path).folder / "manifest.json").read_bytes()).hexdigest()
