"""A model from elsewhere as a run folder: a checkpoint of step 0 that holds weights and no moments."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from megarc.atomic_write import written_atomically
from megarc.config import WORKING_FOLDER, to_dict, to_kept_yaml
from megarc.corpus import TokenizerFacts, copy_tokenizer
from megarc.errors import UserError
from megarc.model import Transformer, named_state
from megarc.parallel import whole
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.fragments import STATE
from megarc.train.config import RunConfig
from megarc.train.folder import RunFolder, keep_facts
from megarc.train.run_position import Standing

CONTINUE = "continue.yaml"


def write_imported(
    folder: Path,
    parameters: Iterable[tuple[str, list[int], Tensor]],
    config: RunConfig,
    tokenizer: tuple[Path, TokenizerFacts] | None = None,
) -> Path:
    """Makes the run folder; the path of its checkpoint.

    The folder has its name when it is whole. Until then it is ``folder.partial``; what a killed import left there
    is removed.

    Args:
        parameters: canonical names, full shapes and full float32 values, 1-D; in memory one at a time.
        config: the model and the window with which it is used.
        tokenizer: its file, and what it says of itself.

    Raises:
        UserError: where the folder is there already, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; give the name of a new run folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    run = RunFolder(partial)
    place = layout.step_folder(run.checkpoints, 0)
    try:
        place.mkdir(parents=True)
        count = 0
        with torch.device("meta"):  # names alone
            state = {name for name, _ in named_state(Transformer(config.model))}
        for name, shape, values in parameters:
            _write_one(place, count, name, shape, values, STATE if name in state else "master")
            count += 1
        if tokenizer is not None:
            copy_tokenizer(tokenizer[0], run.tokenizer)
            keep_facts(tokenizer[1], run.tokenizer)
        with written_atomically(run.config) as file:
            file.write(to_kept_yaml(config).encode())
        with written_atomically(partial / CONTINUE) as file:
            file.write(_continue_keys(folder, config).encode())
        facts = {"config": to_dict(config), "moments": False, WORKING_FOLDER: str(Path.cwd())}
        standing = Standing(0, 0, tokenizer=None if tokenizer is None else tokenizer[1].digest)
        layout.write_manifest(place, range(count), standing, facts)
        partial.rename(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"the run folder {folder} cannot be written: {error}") from None
        raise
    return layout.step_folder(RunFolder(folder).checkpoints, 0)


def _write_one(place: Path, number: int, name: str, shape: list[int], values: Tensor, part: str) -> None:
    """One parameter, or what is state, as the files of one rank."""
    stem = layout.rank_name(number)
    tensors = place / f"{stem}.safetensors"
    save_file({f"{name}/{part}": values.to(torch.float32)}, tensors)
    facts = {
        "tensors": tensors.name,
        "size": tensors.stat().st_size,
        "sha256": layout.digest_of(tensors),
        "fragments": [
            {
                "name": name,
                "shape": shape,
                "boxes": [list(box) for box in whole(tuple(shape))],
            }
        ],
    }
    with written_atomically(place / f"{stem}.json") as file:
        file.write(orjson.dumps(facts))


def _continue_keys(folder: Path, config: RunConfig) -> str:
    """Keys of a run that begins from here, for ``--config``; ``base=`` gives the others."""
    tree: dict[str, Any] = {
        "start_from": str(folder.absolute()),
        "start_with": {"moments": False, "step": False},
        "model": to_dict(config)["model"],
    }
    return (
        "# A run that begins from the imported model:  pretrain --config THIS base=YOURS folder=... data.train=...\n"
        + yaml.safe_dump(tree, sort_keys=False)
    )
