"""Strict typed configuration: a tree of classes, YAML files, ``key=value`` from the command line.

Each room declares its own keys as a ``Config``. A YAML file may name others
under ``base:`` (paths relative to itself); its own keys win. An unknown or
ill-typed key is an error that names the key, its place and the nearest valid one.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import orjson
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
)
from pydantic.fields import FieldInfo

from megarc.errors import UserError, kind_of
from megarc.object_store import holds_credentials, is_stored, without_credentials
from megarc.paths import found_from, user_path
from megarc.quantity import Quantity


class Config(BaseModel):
    """A node of the tree: typed, frozen, no key beyond its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


ConfigT = TypeVar("ConfigT", bound=Config)


def _parse_quantity(value: Any) -> Any:
    if isinstance(value, Quantity):
        return value
    try:
        return Quantity.parse(value)
    except UserError as error:
        raise ValueError(str(error)) from None


Duration = Annotated[Quantity, BeforeValidator(_parse_quantity), PlainSerializer(str)]
"""A key that holds an amount of training, such as ``2B tokens``."""


def _filled_in(path: Path) -> Path:
    try:
        return user_path(path)
    except UserError as error:
        raise ValueError(str(error)) from None


def _no_url(value: Any) -> Any:
    if isinstance(value, str) and is_stored(value):
        raise ValueError("a URL, and this key takes a path of this machine; give one")
    return value


PathKey = Annotated[Path, BeforeValidator(_no_url), AfterValidator(_filled_in)]
"""A key that holds a path: relative to the working folder; ``~`` and ``$NAME`` are filled in."""


def _place(value: Any) -> Path | str:
    if not isinstance(value, str | Path):
        raise ValueError("give a path or a URL, as text")
    if not is_stored(str(value)):
        return _filled_in(Path(value))
    if holds_credentials(str(value)):
        raise ValueError(
            "a URL with a name before an '@'; credentials belong in the environment, not in a URL"
        )
    return str(value)


PlaceKey = Annotated[Path | str, PlainValidator(_place), PlainSerializer(str)]
"""A key that holds a path, or the URL of an object store, which stays as it is."""

WORKING_FOLDER = "working_folder"  # in a kept file, beside the tree: where its relative paths are from


def key(default: Any = ..., meaning: str = "", *, circumstance: bool = False, **limits: Any) -> Any:
    """Declares a key: its default (``...`` for required), what it means, its limits (``ge=1``).

    A key is *identity* of a run, unless ``circumstance`` (topology, logging,
    paths): those may change whenever the run is resumed.
    """
    extra: dict[str, Any] = {"circumstance": circumstance}
    if isinstance(default, type) and issubclass(default, Config):
        return Field(default_factory=default, description=meaning, json_schema_extra=extra, **limits)
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


# ---- reading


def load(kind: type[ConfigT], path: Path | None, overrides: Sequence[str] = ()) -> ConfigT:
    """The tree ``kind`` from a YAML file (or nothing but defaults) and ``a.b=value`` overrides.

    Raises:
        UserError: for a file that is none, a key that is none, a value of the wrong type.
    """
    bases = [override for override in overrides if override.startswith("base=")]
    below: dict[str, Any] | None = None
    for override in bases:
        given: dict[str, Any] = {}
        _apply_override(given, override)
        below = _of_bases(given["base"], Path(), "command line", ())
    tree = read_yaml(path, below) if path else below or {}
    folder = tree.pop(WORKING_FOLDER, None)
    if not isinstance(folder, str | None):
        raise UserError(f"{path}: '{WORKING_FOLDER}' is not a path: {folder!r}")
    for override in overrides:
        if override not in bases:
            _apply_override(tree, override)
    config = build(kind, tree, str(path or "command line"))
    return config if folder is None else found_again(config, Path(folder))


def build(kind: type[ConfigT], tree: Mapping[str, Any], place: str) -> ConfigT:
    """The tree ``kind`` from plain dictionaries; ``place`` names their origin in errors."""
    found = next(_unwritable(tree), None)
    if found is not None:
        raise UserError(f"{place}: '{found[0]}' is {found[1]}")
    try:
        # Through JSON, so that strict types still take a list for a tuple, a string for a path.
        return kind.model_validate_json(orjson.dumps(tree, default=str))
    except ValidationError as error:
        problems = [_explain(kind, problem, place) for problem in error.errors()]
        raise UserError("\n       ".join(problems)) from None


def found_again(config: ConfigT, folder: Path) -> ConfigT:
    """``config``, which was given in the working folder ``folder``, for use in this one: see ``paths.found_from``."""

    def again(value: Any, free: bool = False) -> Any:
        if isinstance(value, Config):
            names = type(value).model_fields
            return value.model_copy(update={name: again(getattr(value, name)) for name in names})
        if isinstance(value, list):
            return [again(item, free) for item in value]
        if isinstance(value, dict):  # options, whose class the source's kind knows: text that may be a path
            return {name: again(item, free=True) for name, item in value.items()}
        if free and isinstance(value, str) and "/" in value:
            with suppress(OSError, ValueError):  # text too long for a path
                return str(found_from(Path(value), folder))
        return found_from(value, folder) if isinstance(value, Path) else value

    found: ConfigT = again(config)
    return found


def overlaid(config: ConfigT, keys: Mapping[str, Any], place: str) -> ConfigT:
    """``config`` with the tree ``keys`` over it; ``place`` names their origin in errors."""
    return build(type(config), _merge(to_dict(config), keys), place)


def read_yaml(
    path: Path, below: Mapping[str, Any] | None = None, above: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """A YAML file's tree, with the files that it names under ``base`` merged beneath it, or with ``below``.

    ``above``: the files that led to this one.
    """
    if path.resolve() in above:
        raise UserError(f"{path} includes itself through 'base', directly or through other files")
    try:
        tree = _from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such configuration file: {path}; correct the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: {error.reason}; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(
            f"cannot read the configuration {path}: {error.strerror}; give a YAML file that you may read"
        ) from None
    except yaml.YAMLError as error:
        told = _yaml_problem(error).replace('in "<unicode string>", ', "")
        raise UserError(f"{path} is not valid YAML: {told}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values at the top, found {kind_of(tree)}")
    bases = tree.pop("base", [])
    if below is None:
        below = _of_bases(bases, path.parent, str(path), (*above, path.resolve()))
    return _merge(below, tree)


def read_own_yaml(path: Path, overrides: Sequence[str] = ()) -> tuple[list[str], dict[str, Any]]:
    """The files that ``path`` names under ``base``, and its own keys with ``overrides`` over them.

    Raises:
        UserError: as ``load``.
    """
    read_yaml(path)  # says what is wrong with it, or with its bases
    tree = _from_yaml(path.read_text(encoding="utf-8")) or {}
    tree.pop(WORKING_FOLDER, None)
    bases = tree.pop("base", [])
    for override in overrides:
        _apply_override(tree, override)
    return [bases] if isinstance(bases, str) else bases, tree


def _of_bases(bases: Any, folder: Path, place: str, above: tuple[Path, ...]) -> dict[str, Any]:
    """The trees of files named under ``base``, the later over the earlier; paths are relative to ``folder``."""
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        given = _shown(bases)
        raise UserError(f"{place}: 'base' names a configuration file, or a list of them; given: {given}")
    merged: dict[str, Any] = {}
    for name in names:
        merged = _merge(merged, read_yaml(folder / user_path(name), above=above))
    return merged


def to_yaml(config: Config) -> str:
    """The resolved tree as YAML, every key present."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def to_kept_yaml(config: Config) -> str:
    """The same for a file that is read again, perhaps in another working folder: with the present one's name."""
    return to_yaml(config) + yaml.safe_dump({WORKING_FOLDER: str(Path.cwd())}, allow_unicode=True)


def to_dict(config: Config) -> dict[str, Any]:
    """The resolved tree as plain dictionaries, lists, strings and numbers."""
    return config.model_dump(mode="json")


# ---- comparing


def digest_of(config: Config) -> str:
    """A short digest of the resolved tree."""
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """``(dotted key, old value, new value)`` of each leaf in which two trees differ."""
    left, right = dict(_leaves(old)), dict(_leaves(new))
    keys = list(left) + [name for name in right if name not in left]
    return [(name, left.get(name), right.get(name)) for name in keys if left.get(name) != right.get(name)]


def identity(config: Config) -> dict[str, Any]:
    """The tree without its circumstances: what makes a run this run and no other."""
    kept: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        if is_circumstance(field):
            continue
        kept[name] = _identity_of(getattr(config, name), to_dict(config)[name])
    return kept


def _identity_of(value: Any, plain: Any) -> Any:
    """What ``identity`` keeps of one key's value; ``plain`` is the same value as plain data."""
    if isinstance(value, Config):
        return identity(value)
    if isinstance(value, list):
        return [_identity_of(item, plain_item) for item, plain_item in zip(value, plain, strict=True)]
    return plain


# ---- helpers


_DEEPEST = 50  # levels of a tree of keys; real ones have six


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 1e-3 is a number, a key given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")  # 1, on and yes are none


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for name_node, _ in node.value:
        line = name_node.start_mark.line + 1
        if name_node.tag not in _KEY_TAGS:
            shown = f"'{name_node.value}'" if isinstance(name_node, yaml.ScalarNode) else "of several values"
            raise yaml.YAMLError(f"line {line}: the key {shown} is not text to YAML; put it in quotes")
        if name_node.value in seen:
            raise yaml.YAMLError(f"line {line}: the key '{name_node.value}' is given twice")
        seen.add(name_node.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _from_yaml(text: str) -> Any:
    """Plain data: the loader is PyYAML's safe one, which makes no objects."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply; write fewer levels") from None
    except ValueError as error:  # a date that is none, an integer of thousands of digits
        raise yaml.YAMLError(f"{error}; text that looks like a number or a date belongs in quotes") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    shown = without_credentials(override)
    if not equals or not name:
        raise UserError(f"'{shown}' is not an override; write key=value, for instance optimizer.lr=3e-4")
    try:
        value = _from_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"'{shown}': the value is not valid YAML: {_yaml_problem(error)}") from None
    *path, last = name.split(".")
    node = tree
    for depth, part in enumerate(path, start=1):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            kind = "list" if isinstance(child, list) else "value"
            whole = ".".join(path[:depth])
            raise UserError(
                f"'{shown}': '{whole}' is a {kind}, not a group of keys; give it whole: {whole}=..."
            )
        node = child
    node[last] = value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def inner_config(field: FieldInfo) -> type[Config] | None:
    """The Config class that a field holds, directly or as ``Class | None``."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def is_circumstance(field: FieldInfo) -> bool:
    """Whether the key may change when a run is resumed."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("circumstance"))


def dotted_keys(kind: type[Config], prefix: str = "") -> Iterator[str]:
    """Every key of the tree ``kind``, groups too: ``window``, ``window.recent``, ..."""
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}"
        inner = inner_config(field)
        if inner is not None:
            yield from dotted_keys(inner, f"{prefix}{name}.")


def _unwritable(tree: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The dotted name of each value that JSON cannot hold, and why: nan would silently become null there."""
    if depth > _DEEPEST:
        yield (
            ".".join(name.split(".")[:3]),
            "a list that contains itself, or is nested too deeply; write it out",
        )
    elif isinstance(tree, Mapping | list):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for part, value in items:
            below = f"{name}.{part}".lstrip(".")
            if isinstance(part, str) and not _is_text(part):
                yield repr(below), "not text: it has half a character (a lone surrogate); write the whole one"
            yield from _unwritable(value, below, depth + 1)
    elif isinstance(tree, str) and not _is_text(tree):
        yield name, f"not text: {tree[:20]!r} has half a character (a lone surrogate); write the whole one"
    elif isinstance(tree, int) and not -(2**63) <= tree < 2**64:
        yield name, "an integer that needs more than 64 bits; give a smaller one"
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield name, f"{tree}; give a finite number, or null where the key may be empty"


_KINDS = {
    "list_type": "it should be a list, in brackets",
    "tuple_type": "it should be a list, in brackets",
    "dict_type": "it should be a group of keys, {key: value}",
    "model_type": "it should be a group of keys, {key: value}",
    "model_attributes_type": "it should be a group of keys, {key: value}",
    "bool_type": "it should be true or false",
}
"""In YAML's words, where pydantic speaks of JSON's."""

_IN_YAML = {"None": "null", "True": "true", "False": "false"}


_FEW_KEYS = 12
_LONG = 2000  # characters of a message


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value for a message: in YAML's words, without passwords, not too long."""
    shown = _IN_YAML.get(repr(value)) or without_credentials(repr(value))
    return shown if len(shown) < 80 else shown[:77] + "..."


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong, with the line that YAML quotes, unless that may show a password or a part of one."""
    mark = getattr(error, "problem_mark", None)
    text = getattr(mark, "buffer", None) or ""
    if mark is None or without_credentials(text) == text:
        return str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'it cannot be read'}"


def _explain(kind: type[Config], problem: Any, place: str) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(dotted_keys(kind))
        bare = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))  # no numbers of lists
        near = difflib.get_close_matches(bare, known, n=1, cutoff=0.5)
        # The right leaf in another group is as likely as a slip of the finger.
        near = near or [path for path in known if path.split(".")[-1] == name.split(".")[-1]][:1]
        if near and near[0].rpartition(".")[0] == bare.rpartition(".")[0]:
            near = [".".join((*name.split(".")[:-1], near[0].rpartition(".")[2]))]
        few = len(known) <= _FEW_KEYS  # such as a source's options, which --keys does not list
        every = f"; the keys are {', '.join(known)}" if few else "; see --keys for all keys"
        hint = f"; did you mean '{near[0]}'?" if near else every
        word, colon, value = name.split(".")[-1].partition(":")
        if colon:
            hint = f"; a space belongs after the colon: {{{word}: {value}}}"
        return f"{place}: unknown key '{name}'{hint}"
    if problem["type"] == "list_type" and isinstance(problem["input"], dict):
        given = "; a space belongs after each colon" * any(
            ":" in name and value is None for name, value in problem["input"].items()
        )
        return f"{place}: '{name}' is a list; put [ ] around its one item{given} (given: {_shown(problem['input'])})"
    if problem["type"] == "missing":
        return f"{place}: the key '{name}' is required and missing"
    message = _KINDS.get(problem["type"]) or without_credentials(problem["msg"].removeprefix("Value error, "))
    if len(message) > _LONG:  # it quotes the value
        message = f"{message[: _LONG // 2]} ... {message[-_LONG // 2 :]}"
    where = f"'{name}'" if name else "the configuration"
    given = f" (given: {_shown(problem['input'])})" if name else ""
    return f"{place}: {where}: {message}{given}"
