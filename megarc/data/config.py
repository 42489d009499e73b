"""The keys of the data: the window, what is hidden in R, the sources, how they are blended and shuffled."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from megarc.config import Config, Duration, PathKey, PlaceKey, key
from megarc.window import Window


def _parse_share(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a share; write it like 0.25 or 1/64") from None


Share = Annotated[float, BeforeValidator(_parse_share)]
"""A key that holds a share, such as ``0.25`` or ``1/64``."""


class MixConfig(Config):
    """A share of the samples with another R in windows of the same rows."""

    share: Share = key(..., "of the samples, drawn by their numbers", gt=0, le=1)
    recent: int = key(..., "their rows of R; 0: causal. All rows behind R are predicted", ge=0)


class WindowStageConfig(Config):
    """The window from some point of the run on."""

    at: Duration = key(
        ..., "where it begins: '0.8 of run', '1M tokens', '5k samples', '300 steps'; the first at 0"
    )
    recent: int = key(..., "rows of R from there on", ge=0)
    causal: int = key(..., "rows of C from there on", ge=1)
    stride: int | None = key(None, "predictions a window makes from there on; empty: all of C", ge=1)

    def build(self) -> Window:
        """The window itself."""
        return Window(self.recent, self.causal, self.causal if self.stride is None else self.stride)


class WindowConfig(Config):
    """The window [R | C]."""

    recent: int = key(512, "rows of R, which all see each other and are not predicted; 0: causal", ge=0)
    causal: int = key(512, "rows of C, which see R and what came before in C", ge=1)
    stride: int | None = key(None, "predictions a window makes, the last rows of C; empty: all of C", ge=1)
    mix: list[MixConfig] = key(
        [],
        "shares of the training samples with another R; the rest, held-out data and generation have this one",
    )
    stages: list[WindowStageConfig] = key(
        [], "windows that follow each other in the run; recent, causal and stride are then those of the last"
    )

    @model_validator(mode="before")
    @classmethod
    def _window_of_the_last_stage(cls, given: Any) -> Any:
        """The window of a run with stages is the last one's: that is how the model is used afterwards."""
        stages = given.get("stages") if isinstance(given, dict) else None
        last = stages[-1] if isinstance(stages, list) and stages else None
        if not isinstance(last, dict):
            return given
        own = {name: last.get(name) for name in ("recent", "causal", "stride") if last.get(name) is not None}
        for name in ("recent", "causal", "stride"):
            if given.get(name) is not None and given[name] != last.get(name):
                theirs = "has none" if last.get(name) is None else f"has {last[name]}"
                raise ValueError(
                    f"window.{name} is {given[name]}, and the last of window.stages {theirs}; leave window.{name} out"
                )
        return {**given, **own}

    @model_validator(mode="after")
    def _mix_fits(self) -> WindowConfig:
        rows, total = self.recent + self.causal, sum(part.share for part in self.mix)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of window.mix sum to {total:g}; they may sum to 1 at most")
        for part in self.mix:
            if part.recent >= rows:
                raise ValueError(
                    f"window.mix has an R of {part.recent} rows in windows of {rows}; give {rows - 1} at most"
                )
        if self.mix and self.stages:
            raise ValueError("window.mix together with window.stages is not supported; give one of them")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> WindowConfig:
        if self.stages and self.stages[0].at.amount != 0:
            raise ValueError(
                f"the first of window.stages begins at '{self.stages[0].at}'; it must begin at '0 samples'"
            )
        strides = [stage.build().stride for stage in self.stages]
        for stride in strides:
            if max(strides) % stride:
                raise ValueError(
                    f"window.stages has strides {strides}: each must divide the largest, {max(strides)}, so that "
                    "no token is predicted twice or never where one stage follows another"
                )
        return self

    def build(self) -> Window:
        """The window itself: of a run with stages the last."""
        return Window(self.recent, self.causal, self.causal if self.stride is None else self.stride)

    def all(self) -> list[Window]:
        """Every window of the run: of its stages, or of its mix."""
        own = self.build()
        mixed = [Window(part.recent, own.rows - part.recent, own.rows - part.recent) for part in self.mix]
        return [stage.build() for stage in self.stages] or [own, *mixed]

    def largest(self) -> Window:
        """The window that takes the most memory."""
        return max(self.all(), key=lambda window: (window.rows, window.stride))

    @property
    def changes(self) -> bool:
        """Whether there is more than one window in the run."""
        return bool(self.mix or self.stages)


class RecentLossConfig(Config):
    """A loss on R: in some samples, some tokens of R are hidden and predicted by the row before them.

    A causal model can have the same loss, on other rows than those of R.
    """

    share: Share = key(1 / 64, "of the samples in which tokens of R are hidden", gt=0, le=1)
    mask: Share = key(0.15, "of the tokens of R in those samples", gt=0, le=1)
    weight: float = key(1.0, "of a hidden token's loss, where a token of C has 1", gt=0)
    token: str | int = key(
        "<spare0>", "what stands in their place: a reserved token of the tokenizer, or an id"
    )
    rows: Literal["recent", "context", "all"] = key(
        "recent",
        "where tokens may be hidden: recent: in R; context: in rows without a loss of their own, so a causal model "
        "can hide what [R | C] hides; all: in every row",
    )


class ObjectiveConfig(Config):
    """What is predicted beside C."""

    recent: RecentLossConfig | None = key(None, "a loss on R; null: R has none")
    widths: Literal["drawn", "all"] = key(
        "drawn", "of model.nested: one drawn for each step, or all at each step (as many passes)"
    )
    width_weights: list[float] | None = key(
        None, "how often each width is drawn, or its weight in the loss; null: all equal"
    )

    @model_validator(mode="after")
    def _weights_are_some(self) -> ObjectiveConfig:
        given = self.width_weights
        if given is not None and (not given or min(given) < 0 or sum(given) <= 0):
            raise ValueError(
                f"width_weights is {given}; give a weight of 0 or more for each width, not all 0"
            )
        return self


class SourceConfig(Config):
    """One source of samples."""

    kind: str = key(
        "corpus",
        "corpus, text (files of text, packed while the run reads them), transcripts (a corpus with weights by "
        "segment), or another kind of source that the run knows",
    )
    path: PlaceKey | None = key(
        None,
        "of a corpus: the prefix P of P.bin and P.idx; of text: a file, a folder, a pattern or @LIST; or a URL of an "
        "object store that stands for one of these (s3://bucket/P)",
        circumstance=True,
    )
    text: str | None = key(None, "of text: the key or column that holds it; empty: text")
    tokenizer: PathKey | None = key(None, "of text: the tokenizer's file, or: bytes", circumstance=True)
    weight: float = key(1.0, "its weight in the blend; data.blend says what a weight counts", gt=0)
    part: tuple[float, float] = key(
        (0.0, 1.0),
        "the part of a corpus that is read: its begin and end as shares of the tokens",
        strict=False,  # a list will do: what has passed a validator is not JSON any more
    )
    windows: int | None = key(None, "only this many windows, a fixed random choice; empty: all", ge=1)
    options: dict[str, Any] = key({}, "further options of this kind of source")

    @model_validator(mode="after")
    def _part_is_one(self) -> SourceConfig:
        if not 0 <= self.part[0] < self.part[1] <= 1:
            raise ValueError(f"part is {list(self.part)}; it must be [from, to] with 0 <= from < to <= 1")
        return self


def _sources(given: Any) -> Any:
    """A prefix, or a list with prefixes in it, as sources."""
    if not isinstance(given, str | list):
        return given
    return [
        {"path": one} if isinstance(one, str) else one
        for one in ([given] if isinstance(given, str) else given)
    ]


Sources = Annotated[list[SourceConfig], BeforeValidator(_sources)]
"""A key that holds sources; the prefix of a corpus stands for ``{path: PREFIX}``, alone or in a list."""


class BlendStageConfig(Config):
    """The weights of the sources from some point of the run on."""

    at: Duration = key(..., "where it begins: '0.8 of run', '1M tokens', '5k samples', '300 steps'")
    weights: list[float] = key(..., "of the sources of data.train, in their order; 0: not read in this stage")

    @model_validator(mode="after")
    def _weights_are_some(self) -> BlendStageConfig:
        if (
            any(not weight >= 0 or weight == float("inf") for weight in self.weights)
            or not sum(self.weights) > 0
        ):
            raise ValueError(
                f"weights of a stage of the blend are {self.weights}; give 0 or more for each source, not all 0"
            )
        return self


class LocalityConfig(Config):
    """A shuffle that stays near, for slow disks and network file systems."""

    block: int = key(1024, "neighbouring windows that stay together", ge=1)
    mixed: int = key(256, "blocks, from anywhere, that are shuffled among each other", ge=1)


_FEWEST_BLOCKS = 16


class StoreCacheConfig(Config):
    """Where blocks of corpora in object stores are kept on this machine."""

    folder: PathKey = key(
        Path("runs/.store"),
        "on a disk of each host, or $TMPDIR/megarc; runs and ranks of a host share it",
        circumstance=True,
    )
    gib: float = key(
        64.0,
        "largest size of the folder in GiB; the least recently used blocks are removed",
        circumstance=True,
        gt=0,
        le=2**30,
    )
    block_kib: int = key(
        1024,
        "KiB of a block; a window that is not in the cache requests whole blocks",
        circumstance=True,
        ge=4,
        le=65536,
    )
    ahead: int = key(
        4,
        "number of later steps whose blocks are requested in advance; 0: none",
        circumstance=True,
        ge=0,
    )

    @model_validator(mode="after")
    def _some_blocks_fit(self) -> StoreCacheConfig:
        if self.limit < _FEWEST_BLOCKS * self.block:
            raise ValueError(
                f"gib {self.gib:g} holds fewer than {_FEWEST_BLOCKS} blocks of {self.block_kib} KiB; give more gib or "
                "a smaller block_kib"
            )
        return self

    @property
    def limit(self) -> int:
        """Bytes that the folder may hold."""
        return int(self.gib * 2**30)

    @property
    def block(self) -> int:
        """Bytes of a block: a multiple of every token's width."""
        return self.block_kib * 1024


class DataConfig(Config):
    """What a run reads."""

    train: Sources = key([], "sources to train on, blended and shuffled")
    valid: Sources = key([], "held-out sources, each window read once, in order")
    blend: Literal["tokens", "documents", "epochs"] = key(
        "tokens",
        "what a weight counts: a share of the predicted tokens, a share of the documents, "
        "or epochs relative to the other sources (equal weights: in proportion to size)",
    )
    blend_stages: list[BlendStageConfig] = key(
        [], "other weights from some points of the run on; before the first, those of the sources"
    )
    documents: Literal["cross", "isolate"] = key(
        "cross", "whether attention crosses from one document to the next or stays inside one"
    )
    packing: Literal["windows", "first_fit", "best_fit"] = key(
        "windows",
        "what a sample of a corpus is. windows: the text cut at every stride; first_fit, best_fit: whole documents "
        "side by side, each with its own R and loss on its answer",
    )
    question_weight: float = key(
        0.0,
        "packed rows: weight of a question's tokens in the loss, where an answer's have 1; rows of R bear none, so "
        "this matters for a causal model and for questions longer than window.recent",
        ge=0,
    )
    segment_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = key(
        {},
        "packed rows: loss weights by segment of a document, which begins with a mark (a reserved token or an id) and "
        "ends before the next one: {<spare1>: 0.3}; tokens before any mark keep the weight of question or answer",
    )
    short_recent: float = key(
        0.0, "share of training samples with fewer rows of R, as short prompts will have", ge=0, le=1
    )
    locality: LocalityConfig | None = key(None, "how far the shuffle reaches; empty: over everything")
    cache: PathKey = key(
        Path("runs/.text"),
        "where text is packed to, 2 or 4 bytes a token; runs share it. On several hosts: a folder that all of them see",
        circumstance=True,
    )
    store_cache: StoreCacheConfig = key(
        StoreCacheConfig, "the cache on each host for corpora in object stores"
    )
    workers: int = key(
        4,
        "processes that pack text ahead of what the run reads; 0: none, so the run waits",
        circumstance=True,
        ge=0,
    )
    most_epochs: float = key(4.0, "warn where a source is repeated more often", circumstance=True, gt=0)

    @model_validator(mode="after")
    def _stages_fit(self) -> DataConfig:
        for number, stage in enumerate(self.blend_stages):
            if len(stage.weights) != len(self.train):
                raise ValueError(
                    f"data.blend_stages[{number}] has {len(stage.weights)} weights, and data.train {len(self.train)} "
                    "sources; give one for each"
                )
        return self

    @property
    def isolates(self) -> bool:
        """Whether attention stays inside a document."""
        return self.documents == "isolate" or self.packs

    @property
    def packs(self) -> bool:
        """Whether samples of corpora are whole documents."""
        return self.packing != "windows"
