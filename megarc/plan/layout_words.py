"""A layout as people write it: ``tensor=8,pipeline=8,micro=1,recompute=full``."""

from __future__ import annotations

import re
from dataclasses import replace

from megarc.errors import UserError
from megarc.model import splits
from megarc.plan.search import Layout, check_layout
from megarc.train import RunConfig

_SIZES = ("tensor", "context", "pipeline", "interleave", "expert", "data", "zero", "micro_batch")
_ALSO = {"micro": "micro_batch", "recomputation": "recompute", "micro-batch": "micro_batch", "tp": "tensor",
         "pp": "pipeline", "dp": "data", "cp": "context", "ep": "expert"}  # fmt: skip
_CHOICES = {
    "recompute": ("none", "selective", "full"),
    "offload": ("none", "optimizer", "all"),
    "sequence": ("true", "false"),
}
_NOT_YET = {
    "interleave": "the engine has no interleaved pipelines (several parts of the model on a stage) yet",
}


def parse_layout(text: str, config: RunConfig, gpus: int) -> tuple[Layout, bool]:
    """The layout, and whether its micro-batch was given; what is not given comes from ``config``.

    Raises:
        UserError: for a word that is none, and a layout that fits neither model, batch nor devices.
    """
    given = _words(text)
    for name, what in _NOT_YET.items():
        if given.get(name, 1) != 1:
            raise UserError(f"--topology: {name}={given[name]}: {what}; use {name}=1")
    tensor, pipeline = int(given.get("tensor", 1)), int(given.get("pipeline", 1))
    context, expert = int(given.get("context", 1)), int(given.get("expert", 1))
    sample = tensor * context * pipeline
    shape = f"tensor {tensor} x {f'context {context} x ' if context > 1 else ''}pipeline {pipeline}"
    if gpus % sample:
        raise UserError(f"--topology: {shape} does not divide --gpus {gpus}; use a multiple of {sample} GPUs")
    data = gpus // sample
    if given.get("data", data) != data:
        raise UserError(
            f"--topology: data={given['data']}, but {gpus} GPUs over {shape} leave {data}; leave data out"
        )
    if data % expert:
        raise UserError(
            f"--topology: expert {expert} does not divide the {data} data ranks that {gpus} GPUs over {shape} leave; "
            f"use {', '.join(str(size) for size in _divisors(data)[:12])}"
        )
    rows = [window.rows for window in config.window.all()]
    can = tensor > 1 and all(count % (context * tensor) == 0 for count in rows)
    zero = int(given.get("zero", 1 if pipeline > 1 else config.parallel.zero))
    layout = Layout(
        tensor=tensor, context=context, pipeline=pipeline, expert=expert, data=data, zero=zero,
        sequence=can if "sequence" not in given else given["sequence"] == "true" and tensor > 1,
        recompute=str(given.get("recompute", config.execution.recompute)),
        offload=str(given.get("offload", config.parallel.offload)),
    )  # fmt: skip
    _check(layout, config)
    micro = given.get("micro_batch", config.batch.micro)
    share = config.batch.size // data
    if micro is not None and share % int(micro):
        if "micro_batch" in given:
            raise UserError(
                f"--topology: micro_batch {micro} does not divide the {share} samples of a data rank; "
                f"use one of {', '.join(str(size) for size in _divisors(share)[:12])}"
            )
        micro = None
    return (layout, False) if micro is None else (replace(layout, micro_batch=int(micro)), True)


def _words(text: str) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.strip().partition("=")
        name = _ALSO.get(name.strip(), name.strip().replace("-", "_"))
        value = value.strip().lower()
        if name in _SIZES and equals:
            if not re.fullmatch("[0-9]{1,9}", value) or (int(value) < 1 and name != "zero"):
                raise UserError(f"--topology: {name}={value[:40]} is not a number of {int(name != 'zero')} or more, "
                                "of at most nine digits")  # fmt: skip
            found[name] = int(value)
        elif name in _CHOICES and value in _CHOICES[name]:
            found[name] = value
        elif name in _CHOICES:
            raise UserError(f"--topology: {name} is {', '.join(_CHOICES[name])}; given: '{value}'")
        else:
            known = [name for name in (*_SIZES, *_CHOICES) if name not in _NOT_YET]
            raise UserError(
                f"--topology: '{word}' is not part of a layout; write for instance "
                f"tensor=8,pipeline=8,zero=1,micro=1,recompute=full (also {', '.join(known)})"
            )
    return found


def _check(layout: Layout, config: RunConfig) -> None:
    if layout.zero not in (0, 1, 2, 3):
        raise UserError(f"--topology: zero={layout.zero}; ZeRO has stages 0 to 3")
    for split in splits(config.model):
        if not split.fits(layout.tensor):
            raise UserError(f"--topology: tensor {layout.tensor} does not divide {split.key} {split.number}")
    if layout.pipeline > config.model.layers:
        raise UserError(
            f"--topology: pipeline {layout.pipeline} is more than model.layers {config.model.layers}: a stage "
            "needs a block"
        )
    if layout.pipeline > 1 and (layout.zero != 1 or layout.offload != "none"):
        raise UserError("--topology: the engine's pipeline works with zero=1 and offload=none only")
    if layout.zero == 0 and config.precision == "bf16":
        raise UserError("--topology: bf16 needs zero=1 or more")
    if layout.zero < {"none": 0, "optimizer": 1, "all": 3}[layout.offload]:
        raise UserError(
            f"--topology: offload={layout.offload} needs zero={'3' if layout.offload == 'all' else '1'}"
        )
    try:
        check_layout(layout, config)
    except ValueError as problem:
        raise UserError(f"--topology: {problem}") from None
    if config.batch.size % layout.data:
        below = config.batch.size // layout.data * layout.data
        sizes = f"{below} or {below + layout.data}" if below else str(layout.data)
        raise UserError(
            f"batch.size {config.batch.size} is not a multiple of {layout.data} data ranks; use {sizes}"
        )


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
