"""The keys of a stack of tiers, and of one job that makes roll-outs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from megarc.config import Config, PathKey, key
from megarc.data import SourceConfig, WindowConfig
from megarc.train import RunConfig


class WritesConfig(Config):
    """Roll-outs that a tier writes at each boundary."""

    samples: int = key(4, "K: roll-outs at a boundary", ge=1)
    tokens: int = key(64, "m: tokens of a roll-out; at most the rows that learned to predict", ge=1)
    temperature: float = key(1.0, "logits are divided by it; 0: the likeliest token", ge=0)
    top_k: int = key(0, "draw among so many likeliest; 0: all", ge=0)
    top_p: float = key(1.0, "draw among the likeliest of this share", gt=0, le=1)
    batch: int = key(64, "boundaries at once", circumstance=True, ge=1)
    shard: int = key(1024, "boundaries of a shard: what a killed job may lose", circumstance=True, ge=1)


class ReadsConfig(Config):
    """How a tier reads the roll-outs of those below it."""

    tiers: list[str] | None = key(None, "whose roll-outs it reads; null: those of all tiers below")
    drop: float = key(0.15, "share of training samples where some or all roll-outs are left out", ge=0, le=1)
    history: int | None = key(
        None,
        "rows of history that stay whatever comes: roll-outs without room beside them are left out, the lowest "
        "tier's first; null: all roll-outs stay, history gets the rest",
        ge=1,
    )
    positions: Literal["rows", "boundary"] = key(
        "rows",
        "rows: a roll-out has the positions of its rows; boundary: it continues the history's, as C does",
    )


class ReadingConfig(ReadsConfig):
    """The options of a source of kind ``rollouts``."""

    of: SourceConfig = key(SourceConfig, "the source whose windows are read")
    window: WindowConfig = key(WindowConfig, "its window: the history that there is, and C")
    rollouts: list[PathKey] = key([], "prefixes P of P.bin, P.idx, P.rollouts.json, lowest tier first")
    arm: Literal["read", "shuffled", "filler"] = key(
        "read", "a control: roll-outs of other windows, or of a filler token alone"
    )
    isolate: bool = key(False, "make batches that say which document each row belongs to")
    seed: int = key(0, "of what is left out", ge=0)


class RolloutsConfig(Config):
    """One job: a tier's roll-outs at every boundary of a source."""

    writer: PathKey = key(meaning="run folder or checkpoint, or, with huggingface, a folder of that library")
    huggingface: bool = key(False, "the writer is a Hugging Face causal model")
    tier: int = key(0, "the writer's number in its stack, 0 at the bottom", ge=0)
    of: SourceConfig = key(SourceConfig, "the source at whose boundaries they are made")
    window: WindowConfig = key(WindowConfig, "its window: the history that there is, and C")
    reads: list[PathKey] = key(
        [], "roll-outs at the same boundaries that the writer reads, lowest tier first"
    )
    writes: WritesConfig = key(WritesConfig, "how many, how long, how drawn")
    to: PathKey = key(meaning="prefix P that is written", circumstance=True)
    seed: int = key(0, "of the draws", ge=0)
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto: CUDA where there is one", circumstance=True)


class TierConfig(Config):
    """One tier."""

    run: dict[str, Any] = key(
        {}, "keys of its run that differ from the stack's `run`; see pretrain.py --keys"
    )
    data: SourceConfig = key(SourceConfig, "its split: no other tier's overlaps it")
    huggingface: PathKey | None = key(
        None,
        "bottom only: a trained Hugging Face causal model with the corpus's tokenizer, in place of a run",
    )
    reads: ReadsConfig = key(ReadsConfig, "how it reads; the bottom tier reads nothing")
    writes: WritesConfig = key(WritesConfig, "what it writes; the top tier writes nothing")


class ControlsConfig(Config):
    """Arms that the stack is held against."""

    seeds: list[int] = key([0, 1], "of the top tier's training, in every arm")
    at_once: int = key(2, "runs at once", circumstance=True, ge=1)


class StackConfig(Config):
    """A stack: everything that `launch/tiers.py` reads."""

    folder: PathKey = key(
        Path("runs/stack"), "its folder; the same command on the same folder resumes it", circumstance=True
    )
    launcher: str = key(
        "python", "what starts a stage: python, 'torchrun --standalone --nproc-per-node 8', srun, ...",
        circumstance=True,
    )  # fmt: skip
    prepare: str | None = key(
        None,
        "a command that makes the corpora, run first; it must do nothing where they are there",
        circumstance=True,
    )
    run: RunConfig = key(RunConfig, "keys that the tiers' runs share; its window is [all history | C]")
    heldout: SourceConfig = key(SourceConfig, "text that no tier trains on")
    tiers: dict[str, TierConfig] = key({}, "by name, bottom first")
    controls: ControlsConfig = key(ControlsConfig, "controls that the stack is compared with")

    @model_validator(mode="after")
    def _tiers_stand_on_each_other(self) -> StackConfig:
        names = list(self.tiers)
        if len(names) < 2:
            raise ValueError(f"a stack has two tiers or more; tiers names {len(names)}")
        if self.run.data.packs:
            raise ValueError(
                f"run.data.packing is {self.run.data.packing}, and roll-outs stand at the boundaries of windows; "
                "use run.data.packing=windows"
            )
        for number, (name, tier) in enumerate(self.tiers.items()):
            unknown = [other for other in tier.reads.tiers or () if other not in names[:number]]
            if unknown:
                raise ValueError(f"tiers.{name}.reads.tiers names {unknown}, which do not stand below it")
            if number and tier.huggingface:
                raise ValueError(f"tiers.{name}.huggingface: only the bottom tier reads no roll-outs")
        return self

    @model_validator(mode="after")
    def _splits_are_disjoint(self) -> StackConfig:
        splits = {name: tier.data for name, tier in self.tiers.items() if tier.huggingface is None}
        listed = [*splits.items(), ("heldout", self.heldout)]
        for place, (name, one) in enumerate(listed):
            for other_name, other in listed[:place]:
                if _overlap(one, other):
                    raise ValueError(
                        f"{name} and {other_name} read the same data; give each a `part` of its own"
                    )
        return self


def _overlap(one: SourceConfig, other: SourceConfig) -> bool:
    """Whether two sources share windows, as far as their keys tell."""
    same = (one.kind, one.path, one.options) == (other.kind, other.path, other.options)
    return same and max(one.part[0], other.part[0]) < min(one.part[1], other.part[1])
