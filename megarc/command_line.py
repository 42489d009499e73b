"""A page's arguments, where keys of a configuration stand among its flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from typing import NoReturn

from megarc.errors import UserError


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, ``key=value`` words among flags in any order.

    Raises:
        UserError: for a key that is written like a flag (``--model.layers 2``), or an option of sbatch that argparse
            does not take for the value of --submit; with how it is written.
    """
    arguments, unknown = parser.parse_known_intermixed_args()
    if unknown and getattr(arguments, "submit", None) == "":
        raise UserError(
            f"there is no flag {unknown[0]}; if it is an option of sbatch, write it behind an equals sign: "
            f"--submit='{' '.join(unknown)}'"
        )
    if unknown:
        refuse(parser, unknown)
    return arguments


def widths(text: str) -> list[Fraction]:
    """Of nested feed-forwards: one for all layers (``1/4``), or one for each (``1/4,1/2``); an argument's type."""
    try:
        return [Fraction(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"'{text}' is not a width; write 1/4, for instance") from None


def whole_number(word: str, least: int = 1) -> int:
    """An argument's whole number of ``least`` or more."""
    if not word.isdigit() or int(word) < least:
        raise argparse.ArgumentTypeError(f"'{word}' is not a whole number of {least} or more")
    return int(word)


def refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Ends with what is wrong with words that are neither flags nor keys.

    Raises:
        UserError: for a key that is written like a flag.
    """
    name, _, value = unknown[0].lstrip("-").partition("=")
    if not unknown[0].startswith("--") or not name:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    raise UserError(
        f"there is no flag --{name}; keys of the configuration are written without dashes: "
        f"{name}={value or 'VALUE'} (--help shows the flags, --keys the keys)"
    )
