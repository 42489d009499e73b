"""The keys of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from megarc.config import Config, key
from megarc.train import RunConfig


class VariantConfig(Config):
    """An arm: the run with some keys changed."""

    name: str = key(..., "what tables and pictures call it", min_length=1)
    keys: dict[str, Any] = key(
        {}, "keys of the run that differ, as a tree: {window: {recent: 0}}; '{at}' is the size's number"
    )


class SizeConfig(Config):
    """A place on the axis: the run with some keys changed, in every arm."""

    at: float = key(..., "where it stands on the axis, for instance the width")
    keys: dict[str, Any] = key({}, "keys of the run that differ, as a tree; an arm's keys win over them")


class GridConfig(Config):
    """Arms x sizes x seeds of one run."""

    folder: Path = key(Path("runs/study"), "the study's folder; the same command resumes the study in it")
    claim: str = key("", "what the study tests, in a sentence")
    expected: str = key("", "what theory expects, with its source")
    run: RunConfig = key(RunConfig, "the run that arms and sizes change")
    arms: list[VariantConfig] = key([], "what is compared; one or more")
    control: str | None = key(None, "the arm that the others are compared with; empty: the first")
    axis: str = key("size", "what the sizes are: width, depth, length")
    sizes: list[SizeConfig] = key([], "every arm is run at each of them; empty: only as it is")
    seeds: int = key(3, "runs of each arm and size: initial values and the data's order", ge=1)
    measure: str = key("heldout/accuracy", "a metric of the run; its last value counts")
    better: Literal["higher", "lower"] = key("higher", "which values of it are good")
    chance: float | None = key(None, "its value for one who has learned nothing; drawn in pictures")
    reach: float | None = key(
        None, "a value; the smallest size whose mean is as good is named for each arm", gt=0
    )

    @model_validator(mode="after")
    def _has_arms(self) -> GridConfig:
        names = [arm.name for arm in self.arms]
        if not names:
            raise ValueError("arms is empty; give one arm at least, such as [{name: causal}]")
        if len(set(names)) < len(names):
            raise ValueError(f"arms has two of one name: {', '.join(names)}; rename one")
        if self.control is not None and self.control not in names:
            raise ValueError(f"control is '{self.control}', which is not an arm; arms are {', '.join(names)}")
        places = [size.at for size in self.sizes]
        if len(set(places)) < len(places):
            raise ValueError(f"sizes has two of one place: {places}; give different values of at")
        return self

    @property
    def compared_with(self) -> str:
        """The arm that the others are compared with."""
        return self.arms[0].name if self.control is None else self.control
