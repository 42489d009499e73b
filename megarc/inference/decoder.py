"""One model and the texts that it writes side by side: windows are begun, then get a row at a time.

Where context ranks share the rows of windows, all of them write the same texts (``shared_slots.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.attention import Slots, on_device
from megarc.inference.own_rows import own_rows
from megarc.inference.shared_slots import SharedSlots
from megarc.interval import Intervals
from megarc.model import Transformer
from megarc.parallel import all_reduce_sum

ROWS = 2048  # that are encoded in one pass: more would only fall out of the processor's cache


@dataclass(frozen=True, slots=True)
class Opening:
    """A window's beginning: ``ids``, of which the first ``recent`` are R."""

    slot: int
    ids: Sequence[int]
    recent: int


class Decoder:
    """``model`` with room for ``slots`` texts, each in a window of at most ``rows`` rows."""

    def __init__(self, model: Transformer, slots: int, rows: int) -> None:
        self.model, self.rows = model, rows
        weight, context = model.embedding.weight, model.tensor.context
        self.device = weight.device
        self._slots: Slots | SharedSlots
        if context.size > 1:
            shape = model.cache_shape()
            self._slots = SharedSlots(shape, slots, rows, weight.dtype, weight.device, context)
        else:
            self._slots = model.empty_slots(slots, rows)

    @torch.inference_mode()
    def begin(self, openings: Sequence[Opening]) -> Tensor:
        """Encodes windows from their first row on; logits [openings, ids] after each."""
        found: dict[int, Tensor] = {}
        # Windows that begin alike are a batch, the others one packed row: no row is padding. Where layers keep
        # states, windows that begin otherwise wait for a pass of their own.
        ordered = sorted(openings, key=lambda one: (len(one.ids), one.recent, one.slot))
        for some in _passes(ordered, self._slots.packs):
            logits = self._begin(some)
            found.update((opening.slot, row) for opening, row in zip(some, logits, strict=True))
        return torch.stack([found[opening.slot] for opening in openings])

    @torch.inference_mode()
    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Adds a token to the texts of slots 0, 1, ...; logits [texts, ids] after it."""
        step = self._slots.stepping(len(tokens))
        given = torch.tensor(tokens, device=self.device)[:, None]
        logits = self.model.logits(given, slice(-1, None), 0, step, step.positions)[:, 0]
        return self.model.tensor.gather_last(logits)

    def move(self, source: int, target: int) -> None:
        """The text of slot ``source`` goes on in slot ``target``."""
        self._slots.move(source, target)

    def _begin(self, openings: Sequence[Opening]) -> Tensor:
        if isinstance(self._slots, SharedSlots):
            return self._begin_shared(openings, self._slots)
        lengths = [len(opening.ids) for opening in openings]
        alike = len({_shape(opening) for opening in openings}) == 1
        cache = self._slots.filling([opening.slot for opening in openings], lengths, packed=not alike)
        if alike:
            tokens = torch.tensor([list(opening.ids) for opening in openings], device=self.device)
            logits = self.model.logits(tokens, slice(-1, None), openings[0].recent, cache)[:, 0]
        else:
            joined = np.concatenate([np.asarray(opening.ids, np.int64) for opening in openings])
            positions = np.concatenate([np.arange(length) for length in lengths])
            logits = self.model.logits(
                torch.from_numpy(joined)[None].to(self.device),
                cache.last,
                on_device(windows_apart(lengths, [opening.recent for opening in openings]), self.device),
                cache,
                torch.from_numpy(positions)[None].to(self.device),
            )
        return self.model.tensor.gather_last(logits)

    def _begin_shared(self, openings: Sequence[Opening], slots: SharedSlots) -> Tensor:
        """The same of windows that begin alike: context ranks encode their rows, and one has the last row's logits."""
        rows, recent = _shape(openings[0])
        context, narrowing = self.model.tensor.context, self.model.config.narrowing
        own = own_rows(recent, rows, len(openings), context, self.device, narrowing=narrowing)
        cache = slots.filling([opening.slot for opening in openings], own)
        given = own.of(np.array([opening.ids for opening in openings]))
        present = len(own.present)
        asked = slice(max(0, present - 1), max(1, present))
        at = own.positions(len(openings))
        logits = self.model.logits(given, asked, own.seen, cache, at)[:, 0]
        if not present or own.present[-1] != rows - 1:
            logits = torch.zeros_like(logits)
        return self.model.tensor.gather_last(all_reduce_sum(logits, context))


def _passes(openings: Sequence[Opening], packs: bool) -> list[list[Opening]]:
    """The openings, sorted by length, in runs of at most so many rows; alike ones only, unless ``packs``."""
    passes: list[list[Opening]] = []
    rows = 0
    for opening in openings:
        alike = bool(passes) and _shape(passes[-1][-1]) == _shape(opening)
        if not passes or rows + len(opening.ids) > ROWS or not (packs or alike):
            passes.append([])
            rows = 0
        passes[-1].append(opening)
        rows += len(opening.ids)
    return passes


def _shape(opening: Opening) -> tuple[int, int]:
    return len(opening.ids), opening.recent


def windows_apart(lengths: Sequence[int], recents: Sequence[int]) -> Intervals:
    """Windows end to end in one row: each row sees its own window's."""
    rows: npt.NDArray[np.int32] = np.arange(sum(lengths), dtype=np.int32)
    begin: npt.NDArray[np.int32] = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths).astype(np.int32)
    end = np.maximum(begin + np.repeat(recents, lengths), rows + 1).astype(np.int32)
    return Intervals(begin[None], end[None])
