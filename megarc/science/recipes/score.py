"""A trained arm on held-out targets, and what it makes of R."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megarc.corpus import IndexedCorpus
from megarc.data import Maker, open_stream
from megarc.errors import UserError
from megarc.inference import evaluate, probe, sample_losses
from megarc.train import SavedModel
from megarc.window import Window

if TYPE_CHECKING:
    from megarc.science.recipes.config import CompareConfig

_PROBED = 4_000  # targets of a corpus


@dataclass(frozen=True, slots=True)
class Scored:
    """Nats a held-out target with its standard error; what seeing R both ways saves, with the error of that.

    For a causal arm ``both_ways`` is what an R that it sees both ways would save.
    """

    nats: float
    error: float
    both_ways: float
    both_ways_error: float


def score(
    comparison: CompareConfig, saved: SavedModel, window: Window, makers: Mapping[str, Maker] | None = None
) -> Scored:
    """On the comparison's held-out source: the same targets for every arm.

    Raises:
        UserError: where the source is too short, or bears no loss.
    """
    source = comparison.run.data.valid[0]
    if source.kind == "corpus" and source.path is not None and not comparison.run.data.packs:
        return _on_text(comparison, saved, window, IndexedCorpus(source.path))
    run = comparison.run
    base = run.window.build()
    stream = open_stream(run.data, "valid", base, run.seed, makers=makers)
    own, causal, both = sample_losses(
        saved.model, stream, comparison.targets, recents=[window.recent, 0, base.recent]
    )
    return Scored(own.nats, own.error, *causal.above(both))


def _on_text(comparison: CompareConfig, saved: SavedModel, window: Window, corpus: IndexedCorpus) -> Scored:
    base = comparison.run.window.build()
    first = Window(base.recent, base.causal, base.stride).first_target
    end = min(len(corpus.tokens), first + comparison.targets)
    if end <= first:
        raise UserError(
            f"{corpus.prefix} has {len(corpus.tokens)} tokens, and a window {base} reads {base.tokens}"
        )
    isolated = corpus.documents_of if comparison.run.data.documents == "isolate" else None
    found = evaluate(saved.model, corpus.tokens, window, range(first, end), documents=isolated)
    some = range(first, min(end, first + _PROBED))
    seen = probe(saved.model, corpus.tokens, window, [base.recent], some, documents=isolated).both_ways
    return Scored(found.nats_per_token, found.standard_error, seen.mean, seen.error)
