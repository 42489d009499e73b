"""A run's file, laid out as planned: the keys of the file that was planned, with the layout's over them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import yaml

from megarc.atomic_write import written_atomically
from megarc.config import read_own_yaml
from megarc.errors import UserError
from megarc.key_reference import Key, every_key
from megarc.plan.search import Plan
from megarc.train import RunConfig


def write_run_file(
    path: Path, source: Path, overrides: list[str], plan: Plan, why: list[str], command: str
) -> None:
    """Writes ``path``: ``why`` and the command as comments, the base of ``source``, its keys, the layout's keys.

    Raises:
        UserError: where it cannot be written.
    """
    bases, tree = read_own_yaml(source, overrides)
    for name, value in _planned(plan).items():
        group, _, key = name.partition(".")
        tree.setdefault(group, {})[key] = value
    tree["parallel"] = {name: value for name, value in tree["parallel"].items() if value is not None}
    bases = [os.path.relpath(source.parent / base, path.parent) for base in bases]
    lines = [f"# {line}" for line in why]
    lines += ["# Written by", f"#   {command}"]
    if bases:
        lines.append(f"base: {bases[0] if len(bases) == 1 else orjson.dumps(bases).decode()}")
    lines += _yaml(tree, {key.path: key for key in every_key(RunConfig)})
    try:
        with written_atomically(path) as file:
            file.write(("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"--write: {path} cannot be written: {error}") from None


def _planned(plan: Plan) -> dict[str, Any]:
    layout = plan.layout
    return {
        "batch.micro": layout.micro_batch,
        "execution.recompute": layout.recompute,
        "parallel.tensor": layout.tensor,
        "parallel.context": layout.context if layout.context > 1 else None,
        "parallel.pipeline": layout.pipeline,
        "parallel.expert": layout.expert if layout.expert > 1 else None,
        "parallel.sequence": layout.sequence,
        "parallel.zero": layout.zero,
        "parallel.offload": None if layout.offload == "none" else layout.offload,
        "parallel.data": None,
        "parallel.world": layout.topology.world,
        "logging.predicted_step": float(f"{plan.step.seconds:.4g}"),
    }


def _yaml(tree: dict[str, Any], keys: dict[str, Key], prefix: str = "") -> list[str]:
    """``name: value    # type, default. Meaning.``"""
    lines, indent = [], "  " * prefix.count(".")
    for name, value in tree.items():
        path = prefix + name
        if isinstance(value, dict) and value and path not in keys:
            lines += [f"{indent}{name}:", *_yaml(value, keys, path + ".")]
            continue
        written = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        line = f"{indent}{name}: {written.removesuffix('...' + chr(10)).strip()}"
        key = keys.get(path)
        if key is not None:
            meaning = key.meaning[:1].upper() + key.meaning[1:]
            line = f"{line:<32} # {key.type}, {key.default}. {meaning}."
        lines.append(line)
    return lines
