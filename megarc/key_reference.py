"""Every key of a configuration, explained: as commented YAML (``--keys``), and one by one (the documentation)."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import orjson
from pydantic.fields import FieldInfo

from megarc.config import Config, inner_config, is_circumstance
from megarc.quantity import Quantity

MARK = "[resume]"
_HEADER = (
    f"# Keys marked {MARK} may change when a run is resumed. "
    "A resumed run refuses another value of any other key.\n"
)
_NAMES = {Quantity: "amount", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``path`` is dotted; ``[]`` stands for an item of a list, ``NAME`` for a name that the user gives.

    Attributes:
        default: as it is written in YAML; empty for a required key.
        resume: whether it may change when a run is resumed.
    """

    path: str
    type: str
    default: str
    meaning: str
    resume: bool


def every_key(kind: type[Config], prefix: str = "", resume: bool = False) -> Iterator[Key]:
    """The keys of the tree, without those that only group others."""
    for name, field in kind.model_fields.items():
        free = resume or is_circumstance(field)
        inner = _group(field)
        if inner is None:
            yield Key(prefix + name, _type(field.annotation), _default(field), field.description or "", free)
            continue
        origin = get_origin(field.annotation)
        below = "[]." if origin is list else ".NAME." if origin is dict else "."
        yield from every_key(inner, f"{prefix}{name}{below}", free)


def reference(kind: type[Config]) -> str:
    """Every key of the tree as commented YAML: type, default, meaning, and whether it may change on resume."""
    keys = _as_yaml(kind, "", False)
    return (_HEADER if MARK in keys else "") + keys


def _as_yaml(kind: type[Config], indent: str, resume: bool) -> str:
    lines = []
    for name, field in kind.model_fields.items():
        free = resume or is_circumstance(field)
        inner = _group(field)
        if inner is not None:
            origin = get_origin(field.annotation)
            keys = _as_yaml(inner, indent + ("  " if origin is None else "    "), free).rstrip("\n")
            if origin is list:
                keys = f"{indent}  - {keys.lstrip()}"
            if origin is dict:
                keys = f"{indent}  NAME:\n{keys}"
            lines += [f"{indent}{name}:" + (f"  # {field.description}" if field.description else ""), keys]
            continue
        words = f"{_type(field.annotation)}. {field.description or ''}".rstrip() + (
            f" {MARK}" if free else ""
        )
        lines.append(f"{indent}{name}: {_default(field)}  # {words}")
    return "\n".join(lines) + "\n"


def _group(field: FieldInfo) -> type[Config] | None:
    """The class of the keys below, where this key is only a group of others."""
    return None if field.is_required() or field.default is None else inner_config(field)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    default = field.get_default(call_default_factory=True)
    return str(default) if isinstance(default, Quantity) else orjson.dumps(default, default=str).decode()


def _type(annotation: Any) -> str:
    """A type in words: ``int or null``, ``'a' | 'b'``, ``amount``."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " | ".join(repr(choice) for choice in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in inside)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_type(one) for one in inside)}]"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))
