"""With which keys and data the results of a comparison were made: others do not belong beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.config import build, differences, identity, to_dict
from megarc.data import Maker, open_stream
from megarc.errors import UserError

if TYPE_CHECKING:
    from megarc.science.recipes.config import CompareConfig

_FREE = {"folder", "arms", "rates", "warmups", "seeds", "finals", "run"}
"""May change: a result's line says its arm, rate, warm-up and seed."""
_ALSO_FIXED = ("length", "precision", "start_from", "start_with")
"""Of a run that is resumed these may change, of a comparison not."""
_SHOWN = 6


def check_made_with(config: CompareConfig, makers: Mapping[str, Maker]) -> None:
    """Refuses a folder whose results were made with other keys or data. One without a note of them is accepted.

    Raises:
        UserError: with the keys that differ.
    """
    path = _file(config)
    if not path.exists():
        return
    try:
        tree: dict[str, Any] = orjson.loads(path.read_bytes())
        before = _fixed(build(type(config), tree["keys"], str(path))) | {"data": tree["data"]}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove it if its results are of these keys"
        ) from None
    changed = differences(before, _fixed(config) | {"data": _digests(config, makers)})
    if changed:
        lines = [f"{name}: {old} there, {new} now" for name, old, new in changed[:_SHOWN]]
        raise UserError(
            f"the folder {config.folder} holds a comparison with other keys or data:\n         "
            + "\n         ".join(lines)
            + "\n       use the old values, or another folder (folder=...)"
        )


def write_made_with(config: CompareConfig, makers: Mapping[str, Maker]) -> None:
    """The note, where there is none."""
    if not _file(config).exists():
        facts = {"keys": to_dict(config), "data": _digests(config, makers)}
        with written_atomically(_file(config)) as file:
            file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def _file(config: CompareConfig) -> Path:
    return config.folder / "comparison.json"


def _fixed(config: CompareConfig) -> dict[str, Any]:
    """The keys that all results share."""
    tree = to_dict(config)
    run = identity(config.run) | {name: tree["run"][name] for name in _ALSO_FIXED}
    run.pop("seed")
    run["schedule"] = {name: value for name, value in run["schedule"].items() if name != "warmup"}
    found = {name: value for name, value in tree.items() if name not in _FREE}
    if any(source.kind != "corpus" for source in config.run.data.train):
        found["first of arms"] = config.arms[0]  # which the budget is that of
    return found | {"run": run}


def _digests(config: CompareConfig, makers: Mapping[str, Maker]) -> dict[str, Any]:
    """What the sources hold."""
    run = config.run
    window = run.window.build()
    train = open_stream(run.data, "train", window, run.seed, makers=makers)
    heldout = open_stream(run.data, "valid", window, run.seed, makers=makers)
    return {"train": train.digests, "heldout": heldout.digests}
