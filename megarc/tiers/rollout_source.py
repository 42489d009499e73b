"""Windows that hold roll-outs, as a source like any other: order, blends, resume ask nothing more of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import orjson

from megarc.config import build
from megarc.data import Facts, Maker, Sample, Samples, Source, SourceConfig, open_source
from megarc.data.counter_random import chance, key_of, table
from megarc.data.source import Indices, read_many
from megarc.errors import UserError
from megarc.tiers.config import ReadingConfig
from megarc.tiers.rollout_layout import Kept, Layout, Tags, Tokens
from megarc.tiers.rollout_store import Rollouts
from megarc.window import Window


def makers(inner: Mapping[str, Maker]) -> dict[str, Maker]:
    """``inner`` and the kind ``rollouts``, which may be built on any of them."""

    def make(config: SourceConfig, window: Window) -> Source:
        reading = build(ReadingConfig, config.options, "options of a source of kind rollouts")
        base_window = reading.window.build()
        base = open_source(reading.of, base_window, inner, isolate=reading.isolate, place="options.of")
        return RolloutSource(
            base, base_window, window, [Rollouts(path) for path in reading.rollouts], reading
        )

    return {**inner, "rollouts": make}


class RolloutSource:
    """Sample k: window k of ``base`` with the roll-outs at its boundary in R.

    Which roll-outs a sample leaves out depends on k and the seed alone.

    Args:
        base_window: of ``base``: all the history that there is, and C.
        window: what is given: its R is shared by history and roll-outs, its C is the base's.

    Raises:
        UserError: where windows or roll-outs do not fit.
    """

    def __init__(
        self,
        base: Source,
        base_window: Window,
        window: Window,
        rollouts: list[Rollouts],
        reading: ReadingConfig,
    ) -> None:
        _check_windows(base_window, window)
        for one in rollouts:
            one.check(base, base_window)
        self._base, self._base_window, self._window = base, base_window, window
        self._rollouts, self._reading = rollouts, reading
        self._tags = Tags.of(base.facts.reserved, base.facts.name) if rollouts else None
        self._layout = Layout(window.recent, reading.history)
        self._count = sum(one.facts.samples for one in rollouts)
        lengths = [one.facts.tokens + 2 for one in rollouts for _ in range(one.facts.samples)]
        self._layout.fitting(lengths)  # refused now, not at the first batch
        self._drop_key = key_of("roll-outs left out", reading.seed)
        self.digest = self._digest()

    @property
    def facts(self) -> Facts:
        facts = self._base.facts
        return replace(facts, name=f"{facts.name} with {self._count} roll-outs a window")

    def __len__(self) -> int:
        return len(self._base)

    def read(self, k: int) -> Sample:
        """Sample k."""
        many = self.read_many(np.asarray([k]))
        parts = (many.weights, many.documents, many.positions)
        weights, documents, positions = (None if part is None else part[0] for part in parts)
        return Sample(many.tokens[0], weights, documents, positions=positions)

    def read_many(self, k: Indices) -> Samples:
        """Samples k [B]."""
        k = np.asarray(k, dtype=np.int64)
        base = read_many(self._base, k, self._base_window)
        boundary = self._base_window.recent
        shown = self._layout.assemble(base.tokens.astype(np.int64), boundary, self.framed(k), self._kept(k))
        documents = base.documents
        if documents is not None:
            documents = np.take_along_axis(documents, shown.origin[:, :-1], axis=1)
        positions = shown.positions[:, :-1] if self._reading.positions == "boundary" else None
        return Samples(shown.tokens, base.weights, documents, positions=positions)

    def framed(self, k: Indices) -> list[Tokens]:
        """Roll-outs at boundaries k [B], between their tags: of each tier [B, K, m + 2]."""
        if self._tags is None:
            return []
        if self._reading.arm == "shuffled":
            k = (k + len(self) // 2) % len(self)
        found = []
        for one in self._rollouts:
            tokens = one.tokens[k].astype(np.int64)
            if self._reading.arm == "filler":
                tokens = np.full_like(tokens, self._tags.filler)
            found.append(self._tags.frame(one.facts.tier, tokens))
        return found

    def _kept(self, k: Indices) -> Kept | None:
        """Which roll-outs [B, count] samples k show: a share ``drop`` shows fewer, any number from none on."""
        if not self._reading.drop or not self._count:
            return None
        word = table(self._drop_key, k, 2 + self._count)
        left = (word[:, 1] >> np.uint64(32)) * np.uint64(self._count) >> np.uint64(32)
        rank = word[:, 2:].argsort(axis=1).argsort(axis=1)
        return ~chance(word[:, 0], self._reading.drop)[:, None] | (rank < left[:, None].astype(np.int64))

    def _digest(self) -> str:
        reading, window = self._reading, self._window
        parts = [
            self._base.digest, [window.recent, window.causal, window.stride], self._base_window.recent,
            [one.facts.content for one in self._rollouts],
            reading.drop, reading.history, reading.positions, reading.arm, reading.seed,
        ]  # fmt: skip
        return "roll-outs-" + hashlib.sha256(orjson.dumps(parts)).hexdigest()


def _check_windows(base: Window, window: Window) -> None:
    if (base.causal, base.stride) != (window.causal, window.stride) or base.stride != base.causal:
        raise UserError(
            f"a tier's window {window} must have the C of the stack's {base}, and predict all of it "
            "(stride = causal): the boundary is C's first row"
        )
    if window.recent > base.recent:
        raise UserError(
            f"a tier's window {window} has more rows of R than the stack's {base} has history: "
            "where roll-outs are left out, history takes their place; make the stack's recent longer"
        )
