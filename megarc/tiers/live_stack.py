"""A stack in use: roll-outs are made where they are needed, bottom to top, then the top tier predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from megarc.errors import UserError
from megarc.inference import Sampling, Score, continuations
from megarc.inference.evaluate import read_tokens
from megarc.inference.score import block_of, blocks
from megarc.tiers.rollout_layout import Tags, Tokens
from megarc.tiers.rollout_writer import Writer, assemble, open_writer, reading_of
from megarc.tiers.sampling import draws
from megarc.tiers.score import row_losses
from megarc.tiers.stack_plan import StackPlan
from megarc.train import load_model


class LiveStack:
    """Every tier of a stack, loaded.

    Args:
        reserved: ids of the reserved tokens, from the tokenizer or a corpus's manifest.
        tokenizer: its digest; None where unknown.
        known: tokens of the tokenizer; None: as many as the models have ids.

    Raises:
        UserError: where a tier has no checkpoint.
    """

    def __init__(
        self,
        plan: StackPlan,
        reserved: Mapping[str, int] | None,
        tokenizer: str | None = None,
        device: torch.device | str = "cpu",
        known: int | None = None,
    ) -> None:
        self.plan, self.device = plan, torch.device(device)
        self.window = plan.window.build()
        self.tags = Tags.of(reserved, "the text")
        self.writers: dict[str, Writer] = {
            name: open_writer(plan.job(name, plan.top), self.tags, self.device, tokenizer, known)
            for name in plan.names[:-1]
        }
        self.top = load_model(plan.run(plan.top).folder, self.device)
        reading = reading_of(self.top.config)
        if reading is None:
            raise UserError(
                f"the top tier in {self.top.checkpoint} reads no roll-outs; was it trained by this stack?"
            )
        self.reading = reading
        ids = self.top.config.model.tokens
        self._never = (*self.tags.ids, *range(ids if known is None else known, ids))

    def rollouts(self, text: Tokens, boundaries: npt.ArrayLike) -> list[tuple[int, Tokens]]:
        """Of each tier below the top, bottom first: its number and roll-outs [batch, K, m].

        Args:
            text: [batch, p], which ends with the boundary's token.
            boundaries: [batch], their numbers: what the draws depend on.
        """
        made: dict[str, tuple[int, Tokens]] = {}
        seed = self.plan.config.run.seed
        for number, (name, writer) in enumerate(self.writers.items()):
            below = [made[other] for other in self.plan.reads(name)]
            uniforms = draws(seed, number, boundaries, self.plan.tier(name).writes)
            made[name] = (number, writer.write(text, below, uniforms)[0])
        return [made[name] for name in self.plan.reads(self.plan.top)]

    def losses(self, text: Tokens, boundaries: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Exact losses [batch, c] of the top tier on windows ``text`` [batch, rows + 1], in nats."""
        boundary = self.window.recent
        below = self.rollouts(text[:, : boundary + 1], boundaries)
        own = self.top.config.window.build()
        shown = assemble(self.reading, own.recent, self.tags, text, boundary, below)
        positions = shown.positions[:, :-1] if self.reading.positions == "boundary" else None
        return row_losses(self.top, shown.tokens, own, positions=positions)

    def evaluate(
        self,
        tokens: npt.NDArray[np.integer],
        targets: range,
        *,
        batch: int = 32,
        bytes_per_token: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Score:
        """``tokens[targets]``, each once, as ``megarc.inference.evaluate`` scores one model."""
        window = self.window
        if self.reading.isolate:
            raise UserError(
                "a stack whose attention stays inside documents is scored on its stored held-out roll-outs: "
                "launch/tiers.py prints that"
            )
        if targets.start < window.first_target or targets.stop > len(tokens) or not targets:
            raise UserError(
                f"the text has {len(tokens)} tokens; the stack's window {window} can score positions "
                f"{window.first_target} to {len(tokens) - 1}, not {targets.start} to {targets.stop - 1}"
            )
        sums = np.zeros(blocks(targets))
        starts = np.arange(
            targets.start - window.first_target, targets.stop - window.first_target, window.stride
        )
        for first in range(0, len(starts), batch):
            some = starts[first : first + batch]
            places = some[:, None] + np.arange(window.tokens)
            # The last window may reach beyond the text: what lies there is no target, and follows all that is.
            text = read_tokens(tokens, np.minimum(places, len(tokens) - 1), self.top.model.config.tokens)
            nll = self.losses(text, some // window.stride)
            target = places[:, 1:][:, window.loss_rows]
            wanted = target < targets.stop
            np.add.at(sums, block_of(target[wanted], targets), nll[wanted])
            if progress is not None:
                progress(int(wanted.sum()))
        return Score(targets, tuple(sums.tolist()), bytes_per_token)

    def generate(
        self,
        prompt: Sequence[int],
        count: int,
        sampling: Sampling,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[int]:
        """``prompt`` and up to ``count`` tokens more; after ``sampling.refresh`` (c) of them all tiers write again.

        Raises:
            UserError: for an empty prompt, a refresh beyond C.
        """
        refresh = sampling.refresh or self.window.causal
        if not len(prompt):
            raise UserError("the prompt is empty; give at least one token")
        if refresh > self.window.causal:
            raise UserError(f"refresh is {refresh}, but C has {self.window.causal} rows; it must be no more")
        own, text, end = self.top.config.window.build(), list(prompt), len(prompt) + count
        generator = np.random.default_rng(sampling.seed)
        sampling = replace(sampling, never=tuple({*sampling.never, *self._never}))
        while len(text) < end:
            known: Tokens = np.asarray(text[-(self.window.recent + 1) :], dtype=np.int64)[None]
            below = self.rollouts(known, [len(text)])
            shown = assemble(self.reading, own.recent, self.tags, known, known.shape[1] - 1, below)
            positions = torch.as_tensor(shown.positions) if self.reading.positions == "boundary" else None
            more = min(refresh, end - len(text))
            drawn, _ = continuations(
                self.top.model,
                torch.as_tensor(shown.tokens).to(self.device),
                shown.recent,
                torch.as_tensor(generator.random((1, 1, more))),
                sampling,
                None if positions is None else positions.to(self.device),
            )
            new = drawn[0, 0].tolist()
            stopped = sampling.stop in new
            text += new[: new.index(sampling.stop) + 1] if stopped else new
            if progress is not None:
                progress(len(new))
            if stopped:
                break
        return text
