"""The keys of the data: the window, the sources, how they are blended and shuffled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from megarc.config import Config, PathKey, key
from megarc.window import Window


class WindowConfig(Config):
    """The window [R | C]."""

    recent: int = key(512, "rows of R, which all see each other and are not predicted; 0: causal", ge=0)
    causal: int = key(512, "rows of C, which see R and what came before in C", ge=1)
    stride: int | None = key(None, "predictions a window makes, the last rows of C; empty: all of C", ge=1)

    def build(self) -> Window:
        """The window itself."""
        return Window(self.recent, self.causal, self.causal if self.stride is None else self.stride)


class SourceConfig(Config):
    """One source of samples."""

    kind: str = key(
        "corpus",
        "corpus, transcripts (a corpus with weights by segment), or another kind of source that the run knows",
    )
    path: PathKey | None = key(None, "of a corpus: the prefix P of P.bin and P.idx", circumstance=True)
    weight: float = key(1.0, "its part of the blend; what it counts stands under data.blend", gt=0)
    part: tuple[float, float] = key(
        (0.0, 1.0),
        "of a corpus: from where to where, as shares of its tokens",
        strict=False,  # a list will do: what has passed a validator is no JSON any more
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


class LocalityConfig(Config):
    """A shuffle that stays near, for slow disks and network file systems."""

    block: int = key(1024, "neighbouring windows that stay together", ge=1)
    mixed: int = key(256, "blocks, from anywhere, that are shuffled among each other", ge=1)


class DataConfig(Config):
    """What a run reads."""

    train: Sources = key([], "sources to train on, blended and shuffled")
    valid: Sources = key([], "held-out sources, each window read once, in order")
    blend: Literal["tokens", "documents", "epochs"] = key(
        "tokens",
        "what a weight counts: a share of the predicted tokens, a share of the documents, "
        "or epochs relative to the other sources (equal weights: in proportion to size)",
    )
    documents: Literal["cross", "isolate"] = key(
        "cross", "whether attention crosses from one document to the next or stays inside one"
    )
    packing: Literal["windows", "first_fit", "best_fit"] = key(
        "windows",
        "what a sample of a corpus is. windows: the text cut at every stride; first_fit, best_fit: whole documents "
        "side by side, each with its own R and loss on its answer",
    )
    short_recent: float = key(
        0.0, "share of training samples with fewer rows of R, as short prompts will have", ge=0, le=1
    )
    locality: LocalityConfig | None = key(None, "how far the shuffle reaches; empty: over everything")
    most_epochs: float = key(4.0, "warn where a source is repeated more often", circumstance=True, gt=0)

    @property
    def packs(self) -> bool:
        """Whether samples of corpora are whole documents."""
        return self.packing != "windows"
