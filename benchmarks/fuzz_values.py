"""Configurations that somebody might write by mistake, or on purpose: for fuzz_configs.py."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from fuzz_corpus import mutated

from megarc.config import Config, dotted_keys, inner_config
from megarc.quantity import Quantity

# As they stand in YAML, behind "key: ".
WRONG = (
    "", "null", "true", "yes", "-1", "0", "1", "1.5", "1e-3", "1e308", "1e999", "-.inf", ".nan", "0x10",
    "0o17", "1_000", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "1000000000000", "-0", "[]", "{}", "[1]", "[[1]]", "{a: 1}", "{a:1}", "[null]", "''", "' '", "abc",
    "'1'", "2026-01-01", "12:30:45", "!!binary aGVsbG8=", "!!set {a, b}",
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!float 1", "!!str 1",
    "&a [*a]", "*nobody", "<<", "| \n    text\n", "'\\u0000'", '"\\0"', '"\\ud800"', "'é ß 漢'",
    "'../../../etc/passwd'", "$NOT_SET_ANYWHERE/x", "~nobody-of-that-name/x", "/dev/null", "/",
    "'a\\nb'", "[1, 2", "{a: ", "? [1]\n  : 2", "@x", "%x", "`x`", "- 1", "2B tokens", "300 steps",
    "300 step", "0 steps", "1 steps", "-5 steps", "5", "5 parsecs", "1e99 tokens", "1.5 of run",
    "0.5 of run", "0 of run", "1e-99 of run", "5k windows", "٣ steps", "1,000 steps", "1,00 steps",
    "1M processed tokens", "100000 processed tokens", "1/3", "1/0", "[1/4, 1/2, 1]", "[1, 1/2]", "auto",
    "none", "fp16", "cpu", "cuda", "float", "[{at: 5k samples, size: 4}]", "[{at: 0 samples, size: 4}]",
    "[{at: 5 steps, size: 0}]", "[{kind: pointer_chase}]", "[{kind: nothing}]", "[{path: nowhere}]",
    "[{path: nowhere, weight: -1}]", "[{recent: 8, share: 2}]", "{kind: x}", "{factor: 2, kind: yarn}",
    "{stage: 3}", "{zero_optimization: {stage: 3}}", "{zero_optimization: 3}", "{gradient_clipping: 1}",
    "{train_batch_size: x}", "{fp16: {enabled: true}}",
)  # fmt: skip
LONG = ("x" * 100_000, "[" * 5_000, "{a: " * 500, "9" * 5_000, "0." + "0" * 4_000 + "1", "- " * 3_000)
_LINES = (
    "\t",
    "base: nowhere.yaml",
    "base: [1]",
    "base: .",
    "<<: {a: 1}",
    "...",
    "---",
    "%YAML 9.9",
    "? x",
    "1: 2",
    "a: b: c",
)


class Mutant(NamedTuple):
    """A file's text, overrides of the command line, and the keys that were touched (none: the text is broken)."""

    text: bytes
    overrides: list[str]
    keys: list[str]
    kind: str


class Tree:
    """All keys of a configuration's class, with their fields."""

    def __init__(self, kind: type[Config], base: dict[str, Any]) -> None:
        self.base = base
        self.fields = dict(_fields(kind))
        self.keys = list(dotted_keys(kind))

    def mutant(self, chance: random.Random) -> Mutant:
        kind = chance.choices(
            ["value", "valid", "typo", "text", "lines", "override"], [30, 30, 8, 12, 8, 12]
        )[0]
        return getattr(self, f"_{kind}")(chance)

    # ---- kinds

    def _value(self, chance: random.Random) -> Mutant:
        """One to three keys with a value that is mostly none of theirs."""
        keys = chance.sample(self.keys, chance.choice((1, 1, 1, 2, 3)))
        raw = {name: chance.choice(LONG) if chance.random() < 0.02 else chance.choice(WRONG) for name in keys}
        return Mutant(self._text(raw).encode(), [], keys, "value")

    def _valid(self, chance: random.Random) -> Mutant:
        """Several keys with values of their type: ranges and combinations."""
        keys = chance.sample(list(self.fields), chance.choice((1, 2, 2, 3, 4, 6)))
        raw = {name: _plausible(self.fields[name].annotation, chance) for name in keys}
        return Mutant(self._text(raw).encode(), [], keys, "valid")

    def _typo(self, chance: random.Random) -> Mutant:
        """A key under another name or in another group."""
        name = chance.choice(self.keys)
        letters = list(name)
        place = chance.randrange(len(letters))
        letters[place : place + chance.choice((0, 1, 2))] = chance.choice(
            ("", "_", "x", "E", " ", ".", "é", ":")
        )
        wrong = "".join(letters) if chance.random() < 0.7 else f"{chance.choice(self.keys)}.{name}"
        return Mutant(self._text({wrong: chance.choice(WRONG)}).encode(), [], [wrong], "typo")

    def _text_of_base(self) -> str:
        return yaml.safe_dump(self.base, sort_keys=False)

    def _text(self, raw: Any) -> Any:
        """The base's YAML with some keys' values in raw YAML; as a kind, called with chance: a damaged text."""
        if isinstance(raw, random.Random):
            return Mutant(mutated(self._text_of_base().encode(), raw), [], [], "text")
        tree = _copied(self.base)
        for number, name in enumerate(raw):
            node, (*groups, last) = tree, name.split(".")
            for group in groups:
                inner = node.get(group)
                if isinstance(inner, list) and inner and isinstance(inner[0], dict):
                    inner = inner[0]  # a key of the first of several sources
                elif not isinstance(inner, dict):
                    inner = node[group] = {}
                node = inner
            node[last] = f"VALUE-{number}-"
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        for number, value in enumerate(raw.values()):
            text = text.replace(f"VALUE-{number}-", value)
        return text

    def _lines(self, chance: random.Random) -> Mutant:
        """Lines twice, without, or with YAML's rarer words."""
        lines = self._text_of_base().splitlines()
        for _ in range(chance.choice((1, 2, 3))):
            place = chance.randrange(len(lines))
            act = chance.randrange(4)
            if act == 0:
                lines.insert(place, lines[chance.randrange(len(lines))])
            elif act == 1 and len(lines) > 1:
                del lines[place]
            elif act == 2:
                lines[place] = chance.choice((" ", "  ", "\t", "- ", "# ")) + lines[place]
            else:
                lines.insert(place, chance.choice(_LINES))
        return Mutant("\n".join(lines).encode(), [], [], "lines")

    def _override(self, chance: random.Random) -> Mutant:
        """On the command line."""
        names = chance.sample(self.keys, chance.choice((1, 1, 2)))
        words = [
            f"{name}{chance.choice(('=', '=', '=', '==', '', ' = '))}{chance.choice(WRONG)}" for name in names
        ]
        return Mutant(self._text_of_base().encode(), words, names, "override")


def _fields(kind: type[Config], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        inner = inner_config(field)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from _fields(inner, f"{prefix}{name}.")


def _plausible(annotation: Any, chance: random.Random) -> str:
    """A value of the type, in YAML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return str(chance.choice(inner))
    if origin in (Union, types.UnionType):
        return "null" if chance.random() < 0.2 else _plausible(inner[0], chance)
    if annotation is bool:
        return chance.choice(("true", "false"))
    if annotation is int:
        return str(chance.choice((0, 1, 1, 2, 2, 3, 4, 4, 6, 7, 8, 16, 16, 100, 1000, 65_536, 10**7, 10**12)))
    if annotation is float:
        return str(chance.choice((0.0, 1e-12, 0.1, 0.5, 0.999, 1.0, 2.0, 1e3, 1e30)))
    if annotation is Quantity or "Quantity" in str(annotation):
        return chance.choice(
            [value for value in WRONG if value.endswith((" steps", " tokens", " run", " windows"))]
        )
    return chance.choice(WRONG)


def _copied(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_copied(value) for value in tree]
    return {name: _copied(value) for name, value in tree.items()} if isinstance(tree, dict) else tree
