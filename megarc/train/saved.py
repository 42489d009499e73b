"""A trained model out of a run folder, whole, on one process: for evaluation, generation, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.model import Transformer
from megarc.train.checkpoint import Standing, full_masters, latest, open_checkpoint
from megarc.train.checkpoint.layout import MANIFEST
from megarc.train.config import RunConfig
from megarc.train.folder import RunFolder


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in evaluation mode, the configuration of its run, and where the run stood."""

    model: Transformer
    config: RunConfig
    standing: Standing
    checkpoint: Path


def load_model(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> SavedModel:
    """The newest whole checkpoint of a run folder, or one ``step-...`` folder.

    Raises:
        UserError: where there is none, or it is not whole.
    """
    if path.name.startswith("step-"):
        found = open_checkpoint(path)
    else:
        newest = latest(RunFolder(path).checkpoints)
        if newest is None:
            raise UserError(f"{path} has no whole checkpoint; is it a run folder, and has the run saved yet?")
        found = newest
    config = build(RunConfig, found.manifest["config"], str(found.folder / MANIFEST))
    model = Transformer(config.model)
    with torch.no_grad():
        for name, values in full_masters(found):
            parameter = model.get_parameter(name)
            parameter.copy_(values.view(parameter.shape))
    return SavedModel(model.to(device, dtype).eval(), config, found.standing, found.folder)
