"""From keys to a stream: makes the sources, weighs them, puts them in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from megarc.config import build
from megarc.corpus import IndexedCorpus, Manifest
from megarc.data.blend import BLOCK, quotas, staged_quotas
from megarc.data.config import DataConfig, RecentLossConfig, SourceConfig
from megarc.data.local_shuffle import Locality
from megarc.data.order import Sequential, Shuffled
from megarc.data.packed import PackedCorpus
from megarc.data.recent_loss import HiddenRecent
from megarc.data.short_recent import ShortRecent
from megarc.data.source import Facts, OrderedSource, Source
from megarc.data.stream import Stream, one_tokenizer
from megarc.data.subset import Subset
from megarc.data.text import open_text
from megarc.data.transcripts import Segments, Transcripts, TranscriptsConfig
from megarc.data.window_shapes import MixedRecent, Shapes
from megarc.data.windows import StridedCorpus
from megarc.errors import UserError
from megarc.progress import human_bytes
from megarc.window import Window

Maker = Callable[[SourceConfig, Window], Source]
"""Makes one kind of source. Higher rooms hand theirs in, so that this room need not know them."""


def open_stream(
    config: DataConfig,
    which: Literal["train", "valid"],
    window: Window,
    seed: int,
    *,
    phase: int = 0,
    makers: Mapping[str, Maker] | None = None,
    shapes: Shapes | None = None,
    hide: RecentLossConfig | None = None,
    blends: Sequence[tuple[int, Sequence[float]]] = (),
) -> Stream:
    """The training samples of a phase, blended and shuffled without end, or the held-out ones, each once.

    Args:
        makers: for kinds of source beside ``corpus``.
        shapes: the windows of the samples, where they differ; None: ``window`` for all.
        hide: a loss on R, in training.
        blends: other weights of the sources from samples on, in order: (sample, weights).

    Raises:
        UserError: for no source, an unknown kind, a corpus that is none or too short, one source given twice.
    """
    configs = config.train if which == "train" else config.valid
    if not configs:
        raise UserError(f"data.{which} is empty; add a source, for instance {{kind: corpus, path: PREFIX}}")
    shapes = shapes or Shapes.one(window)
    if which == "valid" and shapes.mix:
        shapes = Shapes.one(shapes.own)
    isolate = config.documents == "isolate"
    sources = [
        open_source(
            source,
            shapes.grid,
            makers,
            isolate=isolate,
            packing=config.packing,
            question_weight=config.question_weight if which == "train" else 0.0,
            segment_weights=config.segment_weights if which == "train" else None,
            data=config,
            whole=which == "valid" or config.blend != "tokens",
            place=f"data.{which}[{number}]",
        )
        for number, source in enumerate(configs)
    ]
    _refuse_twins(sources)
    one_tokenizer([source.facts for source in sources])
    sizes = [len(source) for source in sources]
    if which == "valid":
        shares = [size / sum(sizes) for size in sizes]
        return Stream(sources, Sequential(sizes), window, shares=shares, shapes=shapes)
    parts = quotas(_shares(config.blend, [one.weight for one in configs], sources))
    stages = [
        (math.ceil(shapes.place(sample)), staged_quotas(_shares(config.blend, weights, sources)))
        for sample, weights in blends
    ]
    locality = Locality(config.locality.block, config.locality.mixed) if config.locality else None
    own = {number: source.turns for number, source in enumerate(sources) if isinstance(source, OrderedSource)}
    if own and locality:
        name = sources[min(own)].facts.name
        raise UserError(f"data.locality: {name} is text, which is shuffled section by section; leave it out")
    sizes = [1 if number in own else size for number, size in enumerate(sizes)]  # not known yet
    digests = [source.digest for source in sources]
    return Stream(
        sources,
        Shuffled(sizes, digests, parts, seed=seed, phase=phase, locality=locality, stages=stages, own=own),
        window,
        shares=[part / BLOCK for part in parts],
        short_recent=ShortRecent(config.short_recent, seed, phase) if config.short_recent else None,
        most_epochs=config.most_epochs,
        shapes=shapes,
        mixed=MixedRecent(shapes.own.recent, shapes.mix, seed, phase) if shapes.mix else None,
        hidden=HiddenRecent.of(hide, sources, seed, phase) if hide else None,
        staged=bool(stages),
    )


def open_source(
    config: SourceConfig,
    window: Window,
    makers: Mapping[str, Maker] | None = None,
    *,
    isolate: bool = False,
    packing: str = "windows",
    question_weight: float = 0.0,
    segment_weights: Mapping[str, float] | None = None,
    data: DataConfig | None = None,
    whole: bool = True,
    place: str = "the source",
) -> Source:
    """One source, for a source that is built on another, or for whoever wants its samples by number.

    Args:
        packing, question_weight, segment_weights: of a corpus, as the keys of ``data``.
        data: the keys of ``data``, for where and how text is packed; None: the defaults.
        whole: wait until all of a text is packed.
        place: names it in errors.
    """
    data = data or DataConfig()
    known = {
        "corpus": _corpus_maker(isolate, packing, question_weight, segment_weights, data),
        "transcripts": _transcripts_maker(isolate, data),
        "text": _text_maker(isolate, data, whole),
        **(makers or {}),
    }
    maker = known.get(config.kind)
    if maker is None:
        raise UserError(
            f"{place}: unknown kind of source '{config.kind}'; known are {', '.join(sorted(known))}"
        )
    if config.kind != "text" and (config.text is not None or config.tokenizer is not None):
        raise UserError(
            f"{place}: text and tokenizer belong to a source of kind text, and its kind is {config.kind}; "
            "leave them out, or use kind: text"
        )
    try:
        source = maker(config, window)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return Subset(source, config.windows, window) if config.windows is not None else source


def _corpus_maker(
    isolate: bool,
    packing: str,
    question_weight: float,
    segment_weights: Mapping[str, float] | None,
    data: DataConfig,
) -> Maker:
    def make(config: SourceConfig, window: Window) -> Source:
        corpus, facts = _corpus(config, data)
        if packing != "windows":
            if corpus.answers is None and corpus.manifest and corpus.manifest.answers_digest:
                raise UserError(
                    f"{config.path}.answers is missing, but {config.path}.json lists it; copy it too"
                )
            return PackedCorpus(
                corpus, window, facts, packing=packing, part=config.part, question_weight=question_weight,
                segment_weights=segment_weights,
            )  # fmt: skip
        return StridedCorpus(corpus, window, facts, part=config.part, isolate=isolate)

    return make


def _text_maker(isolate: bool, data: DataConfig, whole: bool) -> Maker:
    def make(config: SourceConfig, window: Window) -> Source:
        known = whole or config.windows is not None
        return open_text(config, window, data, isolate=isolate, whole=known)

    return make


def _transcripts_maker(isolate: bool, data: DataConfig) -> Maker:
    def make(config: SourceConfig, window: Window) -> Source:
        reading = build(TranscriptsConfig, config.options, "options of a source of kind transcripts")
        corpus, facts = _corpus(config, data)
        base = StridedCorpus(corpus, window, facts, part=config.part, isolate=isolate)
        manifest = corpus.manifest
        end = manifest.tokenizer.end_of_document if manifest and manifest.tokenizer else None
        return Transcripts(base, window, Segments.of(facts.reserved, end, facts.name), reading.weights)

    return make


def _corpus(config: SourceConfig, data: DataConfig) -> tuple[IndexedCorpus, Facts]:
    if config.path is None:
        raise UserError(
            f"a source of kind {config.kind} needs a path: the prefix P of its files P.bin and P.idx"
        )
    try:
        corpus = IndexedCorpus(config.path, cache=data.store_cache)
    except UserError as error:
        parts = str(config.path).split(",")
        if len(parts) == 1:
            raise
        raise UserError(f"{error}; several corpora are a list, in brackets: [{','.join(parts)}]") from None
    facts = _facts(str(config.path), corpus, corpus.manifest)
    return corpus, facts if corpus.url is None else replace(facts, note=_of_a_store(corpus, data))


def _of_a_store(corpus: IndexedCorpus, data: DataConfig) -> str:
    size, cache = len(corpus.tokens) * corpus.dtype.itemsize, data.store_cache
    note = f"{human_bytes(size)} in a store, read through {cache.folder} ({cache.gib:g} GiB)"
    if size > cache.limit and data.locality is None:
        note += (
            f", which is too small for it: most windows request a block of {cache.block_kib} KiB. Increase "
            "data.store_cache.gib, or shuffle block by block (data.locality)"
        )
    return note


def _facts(name: str, corpus: IndexedCorpus, manifest: Manifest | None) -> Facts:
    tokens, documents = len(corpus.tokens), corpus.document_count
    if manifest is None:
        return Facts(name, tokens, documents)
    text, tokenizer = manifest.text_bytes, manifest.tokenizer
    return Facts(
        name,
        tokens,
        documents,
        bytes_per_token=text / tokens if text is not None and tokens else None,
        vocabulary=tokenizer.vocabulary_size if tokenizer else None,
        tokenizer_digest=tokenizer.digest if tokenizer else None,
        reserved=tokenizer.reserved if tokenizer else None,
    )


def _refuse_twins(sources: Sequence[Source]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        name = source.facts.name
        if source.digest in seen:
            raise UserError(
                f"{name} holds the same as {seen[source.digest]}, which is in the same list; "
                "name it once and give it the weight of both"
            )
        seen[source.digest] = name


def _shares(blend: str, weights: Sequence[float], sources: Sequence[Source]) -> list[float]:
    """Each source's share of the samples, not yet scaled to sum to 1 [sources]."""
    if blend == "tokens":
        return list(weights)
    if blend == "epochs":
        return [weight * len(source) for weight, source in zip(weights, sources, strict=True)]
    shares = []
    for weight, source in zip(weights, sources, strict=True):
        facts = source.facts
        if not facts.tokens or not facts.documents:
            raise UserError(
                f"data.blend is 'documents', but {facts.name} does not know its documents; use 'tokens'"
            )
        shares.append(weight * facts.tokens / facts.documents)
    return shares
