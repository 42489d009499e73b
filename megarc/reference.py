"""Every key of a configuration, explained."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import orjson

from megarc.config import Config, inner_config
from megarc.quantity import Quantity

_NAMES = {Quantity: "amount", type(None): "null"}


def reference(kind: type[Config], indent: str = "") -> str:
    """Every key of the tree as commented YAML: type, default, meaning."""
    lines = []
    for name, field in kind.model_fields.items():
        inner = inner_config(field)
        origin = get_origin(field.annotation)
        note = f"  # {field.description}" if field.description else ""
        if inner is not None and not field.is_required() and field.default is not None:
            keys = reference(inner, indent + ("  " if origin is None else "    ")).rstrip("\n")
            if origin is list:
                keys = f"{indent}  - {keys.lstrip()}"
            if origin is dict:
                keys = f"{indent}  NAME:\n{keys}"
            lines += [f"{indent}{name}:{note}", keys]
            continue
        default = "" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        lines.append(f"{indent}{name}: {default}  # {_type(field.annotation)}. {field.description}".rstrip())
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
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
