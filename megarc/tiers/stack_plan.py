"""What a stack is made of: its stages in order, each a command with a file of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megarc.atomic_write import written_atomically
from megarc.config import Config, load, overlaid, to_dict, to_kept_yaml
from megarc.data import SourceConfig
from megarc.errors import UserError
from megarc.tiers.config import ReadingConfig, RolloutsConfig, StackConfig, TierConfig
from megarc.train import RunConfig

HELDOUT = "heldout"


@dataclass(frozen=True, slots=True)
class Stage:
    """A command: ``script --config file``, which makes ``product``."""

    name: str
    script: str
    config: RunConfig | RolloutsConfig
    product: Path
    file: Path


class StackPlan:
    """Paths and configurations of all that a stack consists of."""

    def __init__(self, config: StackConfig) -> None:
        self.config, self.folder = config, config.folder
        self.names = list(config.tiers)
        self.window = config.run.window
        for keys in (
            config.run.window,
            *(tier.window for tier in config.tiers.values() if hasattr(tier, "window")),
        ):
            if keys.changes:
                raise UserError(
                    "run.window: a stack's windows do not change in a run; leave mix and stages out"
                )
        if config.run.objective.recent is not None:
            raise UserError(
                "run.objective.recent: a stack's R holds roll-outs, and they are not predicted; leave it out"
            )
        window = self.window.build()
        if window.stride != window.causal:
            raise UserError(
                f"run.window {window}: a stack predicts all of C; leave stride out, or make it {window.causal}"
            )

    # ---- stages

    def stages(self) -> Iterator[Stage]:
        """Bottom to top: roll-outs for a tier, the tier, its roll-outs for the held-out text."""
        for number, name in enumerate(self.names):
            for writer in self.names[:number]:
                yield self._rollouts(writer, name)
            if self.tier(name).huggingface is None:
                yield self.training(name)
            if name != self.top:
                yield self._rollouts(name, HELDOUT)

    def training(self, name: str) -> Stage:
        run = self.run(name)
        return Stage(f"train {name}", "pretrain.py", run, run.folder, self.folder / "stages" / f"{name}.yaml")

    def _rollouts(self, writer: str, reader: str) -> Stage:
        job = self.job(writer, reader)
        file = self.folder / "stages" / f"rollouts-{writer}-for-{reader}.yaml"
        return Stage(f"roll-outs of {writer} for {reader}", "rollouts.py", job, job.to, file)

    # ---- configurations

    def tier(self, name: str) -> TierConfig:
        return self.config.tiers[name]

    def run(self, name: str) -> RunConfig:
        """The run of a tier."""
        tier = self.tier(name)
        shared = self.config.run.model_copy(update={"folder": self.folder / name})
        run = overlaid(shared, tier.run, f"tiers.{name}.run")
        below = self.reads(name)
        source, valid = tier.data, self.config.heldout
        if below:
            source, valid = self.reading_source(name, name), self.reading_source(name, HELDOUT, drop=0.0)
        return run.model_copy(
            update={"data": run.data.model_copy(update={"train": [source], "valid": [valid]})}
        )

    def job(self, writer: str, reader: str) -> RolloutsConfig:
        """The roll-outs of ``writer`` at the boundaries of ``reader``, a tier's name or ``heldout``."""
        tier = self.tier(writer)
        return RolloutsConfig(
            writer=tier.huggingface or self.run(writer).folder,
            huggingface=tier.huggingface is not None,
            tier=self.names.index(writer),
            of=self.split(reader),
            window=self.window,
            reads=[self.prefix(other, reader) for other in self.reads(writer)],
            writes=tier.writes,
            to=self.prefix(writer, reader),
            seed=self.config.run.seed,
            device=self.config.run.device,
        )

    def reads(self, name: str) -> list[str]:
        """The tiers whose roll-outs a tier reads, lowest first."""
        wanted, below = self.tier(name).reads.tiers, self.names[: self.names.index(name)]
        return [other for other in below if wanted is None or other in wanted]

    def reading(self, name: str, split: str, **changes: Any) -> ReadingConfig:
        """How a tier reads a split: its own, another's, or ``heldout``."""
        keys = {
            **dict(self.tier(name).reads),
            "of": self.split(split),
            "window": self.window,
            "rollouts": [self.prefix(other, split) for other in self.reads(name)],
            "isolate": self.config.run.data.documents == "isolate",
            "seed": self.config.run.seed,
        }
        return ReadingConfig(**{**keys, **changes})

    def reading_source(self, name: str, split: str, **changes: Any) -> SourceConfig:
        """The same as an entry of a run's data."""
        options = to_dict(self.reading(name, split, **changes))
        # The path is not read: it tells where the tokenizer lies.
        return SourceConfig(kind="rollouts", path=self.split(split).path, options=options)

    def split(self, name: str) -> SourceConfig:
        return self.config.heldout if name == HELDOUT else self.tier(name).data

    def prefix(self, writer: str, reader: str) -> Path:
        return self.folder / "rollouts" / f"{writer}-for-{reader}"

    @property
    def own(self) -> list[str]:
        """The tiers that are trained here: all but a Hugging Face model at the bottom."""
        return [name for name in self.names if self.tier(name).huggingface is None]

    @property
    def top(self) -> str:
        return self.names[-1]


def write_keys(file: Path, config: Config) -> None:
    """Keeps a configuration as a YAML file."""
    with written_atomically(file) as out:
        out.write(to_kept_yaml(config).encode())


def open_stack(path: Path) -> StackPlan:
    """A stack by its configuration file, or by its folder.

    Raises:
        UserError: where there is none.
    """
    file = path / "stack.yaml" if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{path} is not a stack: there is no file {file}; launch/tiers.py makes stacks")
    return StackPlan(load(StackConfig, file))
