"""How a run begins from another run's checkpoint: what it takes along, and where it stands in the data."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from megarc.config import build, differences, to_dict
from megarc.data import Stream
from megarc.errors import UserError, reported_once
from megarc.model import ModelConfig, forward_scales
from megarc.parallel import broadcast_object, together
from megarc.train.checkpoint.layout import Checkpoint
from megarc.train.checkpoint.load import load
from megarc.train.checkpoint.trained_model import find_checkpoint
from megarc.train.config import RunConfig
from megarc.train.engine import Engine
from megarc.train.run_position import Standing
from megarc.train.schedule import Lengths

log = logging.getLogger("megarc")

_NO_ORDER = ("valid", "most_epochs", "documents", "short_recent")  # keys of data that leave sample k as it is


def begin_from(path: Path, engine: Engine, stream: Stream) -> Standing:
    """Loads what ``start_with`` takes along of a run folder or checkpoint; all ranks together.

    Raises:
        UserError: where it is none or damaged, of another model or tokenizer, or the run would be over at once.
    """
    groups, config = engine.groups, engine.config
    found = together(lambda: find_checkpoint(path) if groups.first else None, groups.world)
    found = broadcast_object(found, groups.world)
    assert found is not None
    # An imported model has no moments, so there are none to take along.
    moments = config.start_with.moments and found.manifest.get("moments", True)
    with reported_once(groups.first):
        _check_tokenizer(found, stream)
        _check_scales(found, config)
        standing = standing_from(found.standing, config, stream, found.manifest["config"])
        _check_length(found, standing, config)
    if groups.first:
        taken = "weights and moments" if moments else "weights"
        log.info("starts from %s (step %d): its %s", found.folder, found.standing.step, taken)
        log.info("%s", _describe_data(found, standing, config))
    load(found, engine, moments=moments)
    return standing


def standing_from(there: Standing, config: RunConfig, stream: Stream, keys: dict[str, Any]) -> Standing:
    """Where a run stands that begins from a checkpoint that stood ``there``.

    In the same order it goes on behind the samples that were read; in another one a new phase begins at 0. Tokens
    are counted on where the step is.

    Args:
        keys: the configuration of the run that saved the checkpoint.
    """
    shapes, kept = Lengths(config).shapes, config.start_with
    blended = bool(config.data.blend_stages)
    staged = len(shapes.pieces) > 1 or blended
    if staged and kept.step:
        raise UserError(
            f"start_from into {'data.blend_stages' if blended else 'window.stages'}: where its stages begin is counted "
            "from the run's own start; use start_with.step=false, or leave the stages out"
        )
    # Stages begin at samples of the order, so a run with stages reads an order from its start.
    same = there.order == stream.order and not staged
    standing = Standing(
        step=0,
        samples=0,
        phase=there.phase if same else there.phase + 1,
        begin=there.begin - there.samples if same else 0,
        order=stream.order,
        tokenizer=stream.tokenizer_digest,
        skipped=there.skipped if same else [],
        sources=stream.digests,
    )
    if kept.step:
        predicted, processed = tokens_of(there, keys)
        samples = max(0, shapes.samples_of(predicted + 1, lambda window: window.stride) - 1)
        standing = replace(
            standing,
            step=there.step,
            samples=samples,
            begin=standing.begin + samples,
            without_update=there.without_update,
            more_predicted=predicted - shapes.predicted(samples),
            more_processed=processed - shapes.processed(samples),
            losses=there.losses if same else {},  # other data have another mean
        )
    return replace(standing, more_updates=(there.updates if kept.moments else 0) - standing.updates)


def tokens_of(standing: Standing, keys: dict[str, Any]) -> tuple[int, int]:
    """Predicted and processed tokens until ``standing``, in a run with the configuration ``keys``."""
    shapes = Lengths(build(RunConfig, keys, "the checkpoint")).shapes
    return (
        shapes.predicted(standing.samples) + standing.more_predicted,
        shapes.processed(standing.samples) + standing.more_processed,
    )


def _describe_data(found: Checkpoint, standing: Standing, config: RunConfig) -> str:
    if found.standing.order == standing.order and found.standing.phase == standing.phase:
        return f"data: continues in the same order at sample {standing.samples - standing.begin}"
    if not found.standing.order:
        imported = not found.manifest.get("moments", True)
        whose = (
            "holds an imported model"
            if imported
            else "was saved by an earlier megarc and does not say its order"
        )
        why = f"{found.folder} {whose}"
    else:
        changed = differences(_order_keys(found.manifest["config"]), _order_keys(to_dict(config)))
        why = "another order, by " + (", ".join(name for name, *_ in changed) or "the sources' content")
    return f"data: new phase, begins at 0; {why}"


def _order_keys(tree: dict[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in tree["data"].items() if name not in _NO_ORDER}
    return {"seed": tree["seed"], "window": tree["window"], "data": data}


def _check_tokenizer(found: Checkpoint, stream: Stream) -> None:
    there, here = found.standing.tokenizer, stream.tokenizer_digest
    if there is not None and here is not None and there != here:
        raise UserError(
            f"{found.folder} was trained on text of another tokenizer than data.train: the same ids mean other "
            "text there; pack the corpora with the tokenizer of that run"
        )


def _check_scales(found: Checkpoint, config: RunConfig) -> None:
    """Weights of the same shapes are another model under other scales, and with heads cut elsewhere."""
    there = build(RunConfig, found.manifest["config"], f"the checkpoint {found.folder}").model
    for what, of in (
        ("head_dim", lambda model: model.width_of_head),
        ("scales of the parametrization (branches, rows before the head, queries)", forward_scales),
        ("initial_std, by which crf divides its tables", _table_unit),
    ):
        if of(there) != of(config.model):
            raise UserError(
                f"start_from {found.folder}: its model's {what}: {of(there)}, and this run's: {of(config.model)}. The "
                "same weights would be another model; give model.parametrization, base_hidden, base_layers, heads and "
                "(with crf) initial_std as that run has them"
            )
    _check_expert_weights(found, there, config.model)


def _check_expert_weights(found: Checkpoint, there: ModelConfig, here: ModelConfig) -> None:
    """What a router's products mean. ``active`` may change, as a sliding window may."""
    if there.experts is None or here.experts is None:
        return  # the weights themselves differ
    changed = [
        f"{name} {before} there and {after} here"
        for name in ("scores", "normalised", "scale")
        if (before := getattr(there.experts, name)) != (after := getattr(here.experts, name))
    ]
    if changed:
        raise UserError(
            f"start_from {found.folder}: model.experts has {', '.join(changed)}. The same weights would be another "
            "model; give these keys as that run has them"
        )


def _table_unit(model: ModelConfig) -> float | None:
    return model.initial_std if "crf" in model.mixers else None


def _check_length(found: Checkpoint, standing: Standing, config: RunConfig) -> None:
    if standing.step >= (last := Lengths(config, standing.step, standing.samples).end):
        raise UserError(
            f"start_from {found.folder} stands at step {standing.step}, and this run ends at step {last}: there is "
            "nothing to train. Make length (or until) longer, or count from 0 with start_with.step=false"
        )
