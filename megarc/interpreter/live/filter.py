"""Toolformer's filter: a piece stays where its output makes the text that follows likelier.

Loss of the text that follows, its first tokens weighing most, given three beginnings: with code and output, with
code alone, with neither. A piece stays where the first is lower than the better of the others by a threshold.
Formula: Schick et al. 2023, "Toolformer" (2302.04761), section 2, equation for L+ and L-.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megarc.corpus import Segment, Tokenizer, TranscriptTokenizer, plain_ids, write_marked
from megarc.data.source import Tokens
from megarc.model import Transformer
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that says what a piece is worth.

    Attributes:
        threshold: nats a token, weighted, by which the output must lower the loss.
        following: so many tokens of the text that follows, at most C; the paper's weights end behind the fifth.
    """

    model: Transformer
    window: Window
    tokenizer: Tokenizer
    threshold: float = 0.1
    following: int = 5

    def gains(self, segments: Sequence[Segment]) -> list[float | None]:
        """Of each segment that is code with an output: how much that lowers the loss; None for the others.

        A piece that no text follows gains nothing.
        """
        return [
            self._gain(segments, place) if _has_output(segments, place) else None
            for place in range(len(segments))
        ]

    def filtered(self, segments: Sequence[Segment]) -> tuple[list[Segment], int, int]:
        """The segments with the pieces that help; the others are text without an output. How many of each."""
        kept: list[Segment] = []
        good = bad = 0
        dropped = False
        for segment, gain in zip(segments, self.gains(segments), strict=True):
            if segment.kind == "output" and dropped:
                continue
            dropped = gain is not None and gain < self.threshold
            good += gain is not None and not dropped
            bad += dropped
            kept.append(Segment("text", segment.text) if dropped else segment)
        return kept, good, bad

    def _gain(self, segments: Sequence[Segment], place: int) -> float:
        following = "".join(one.text for one in segments[place + 2 :] if one.kind == "text")
        targets = plain_ids(self.tokenizer, [following])[0][: min(self.following, self.window.causal)]
        if not len(targets):
            return 0.0
        before = list(segments[:place])
        code, output = segments[place : place + 2]
        shown, called, neither = (
            self._loss([*before, *more], targets) for more in ([code, output], [code], [])
        )
        return min(called, neither) - shown

    @torch.inference_mode()
    def _loss(self, before: Sequence[Segment], targets: Tokens) -> float:
        """Weighted loss of ``targets`` behind ``before``, in nats a token: the last token of that begins C."""
        marked = TranscriptTokenizer(self.tokenizer)
        known = [self.tokenizer.end_of_document, *marked.encode(write_marked(before)).tolist()]
        known = known[-_room(self.window, len(targets)) :]
        device = next(self.model.parameters()).device
        tokens = torch.tensor([[*known, *targets.tolist()]], device=device)
        rows = slice(len(known) - 1, tokens.shape[1] - 1)
        nll = self.model(tokens, rows, min(self.window.recent, len(known) - 1)).nll[0].double().cpu().numpy()
        weights = np.maximum(1.0 - 0.2 * np.arange(len(targets)), 0.0)  # the paper's: five tokens count
        return float((weights * nll).sum() / weights.sum())


def _room(window: Window, targets: int) -> int:
    """Tokens before the targets: R and the boundary's; without R, what the window holds beside them."""
    return window.recent + 1 if window.recent else max(1, window.rows - targets + 1)


def _has_output(segments: Sequence[Segment], place: int) -> bool:
    after = segments[place + 1] if place + 1 < len(segments) else None
    return segments[place].kind == "code" and after is not None and after.kind == "output"
