"""What a model looks like in a folder: names of tensors and config.json, ours and Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

import megarc
from megarc.config import build, to_dict
from megarc.errors import UserError
from megarc.inference import huggingface
from megarc.inference.huggingface.families import family_of
from megarc.inference.huggingface.tensor_names import Pieces
from megarc.inference.huggingface.write_config import modeling
from megarc.model import ModelConfig
from megarc.window import Window

Layout: TypeAlias = Literal["megarc", "huggingface"]

_FORMAT = "megarc model"


@dataclass(frozen=True, slots=True)
class Written:
    """What a layout writes of one model.

    Attributes:
        pieces: from a canonical name and its full values to the file's names and values: views, no copies.
        zeros: names and shapes of tensors that the layout has and we have not; they are 0.
        files: small files beside the tensors, config.json the last of them.
    """

    pieces: Pieces
    zeros: list[tuple[str, tuple[int, ...]]]
    files: dict[str, Any]


def laid_out(
    layout: Layout, config: ModelConfig, window: Window, dtype: torch.dtype, end: int | None = None
) -> Written:
    """The model in ``layout``; ``end`` is the token that ends a document.

    Raises:
        UserError: where the layout has no place for the model.
    """
    shape = {"recent": window.recent, "causal": window.causal, "stride": window.stride}
    own = {"format": _FORMAT, "megarc": megarc.__version__, "model": to_dict(config), "window": shape}
    if layout == "megarc":
        return Written(_as_it_is, [], {"config.json": own})
    family = family_of(config)
    facts = huggingface.describe(family, config, window, dtype)
    if window.recent:
        own["note"] = (
            f"Trained with the window {window}: its first {window.recent} rows all see each other. Served under "
            "a plain causal mask this is another model, with worse predictions."
        )
    files: dict[str, Any] = {"generation_config.json": {"bos_token_id": None, "eos_token_id": end}}
    if window.recent:
        files["modeling_megarc.py"] = modeling(family)
    files["config.json"] = {**facts, "eos_token_id": end, "megarc": own}
    return Written(huggingface.pieces_of(family, config), huggingface.zeros_of(family, config), files)


def read_description(facts: Mapping[str, Any], place: str) -> tuple[Pieces, ModelConfig, Window]:
    """How tensors are named and cut, model and window of a config.json that ``laid_out`` made.

    Raises:
        UserError: where it is another's.
    """
    hugging = "architectures" in facts
    own = facts.get("megarc") if hugging else facts
    if not isinstance(own, Mapping) or own.get("format") != _FORMAT:
        raise UserError(
            f"{place} was not written by megarc's export; launch/export.py writes such a folder, and "
            "launch/import.py reads other models"
        )
    config = build(ModelConfig, own["model"], place)
    pieces = huggingface.pieces_of(family_of(config), config) if hugging else _as_it_is
    return pieces, config, Window(**own["window"])


def _as_it_is(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, values
