"""Prints a script that completes commands, options and keys of megarc in your shell."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples, pages, summary
from megarc.config import Config, dotted_keys
from megarc.errors import UserError, run_script

EXAMPLES = """examples:
  eval "$(python launch/completion.py bash)"         in this shell
  python launch/completion.py bash > ~/.local/share/bash-completion/completions/megarc
  python launch/completion.py zsh > "${fpath[1]}/_megarc"
  python launch/completion.py fish > ~/.config/fish/completions/megarc.fish

It needs the package shtab:  pip install 'megarc[completion]'"""

# A key goes on with its value: no space after the sign of equality.
_BASH_KEYS = """
_megarc_without_space() {
  _shtab_megarc "$@"
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
  return 0
}
complete -o filenames -F _megarc_without_space megarc
"""


def main() -> None:
    arguments = parser().parse_args()
    try:
        import shtab
    except ImportError:
        raise UserError(
            "completion needs the package shtab; install it with: pip install 'megarc[completion]'"
        ) from None
    print(shtab.complete(whole(), arguments.shell))
    if arguments.shell == "bash":
        print(_BASH_KEYS)


def whole() -> argparse.ArgumentParser:
    """One parser that has every page's parser as a command."""
    top = argparse.ArgumentParser(prog="megarc")
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers()
    for name, path in pages().items():
        page = page_parser(path)
        commands._parser_class = lambda page=page, **_: page  # type: ignore[assignment]
        commands.add_parser(name, help=summary(path).replace("`", ""))
    return top


def page_parser(path: Path) -> argparse.ArgumentParser:
    """A page's parser; its ``key=value`` words are completed from the tree that the page reads."""
    before = list(sys.path)
    sys.path.insert(0, str(path if path.is_dir() else path.parent))
    try:
        names = runpy.run_path(str(path), run_name="page")
        parser = names["parser"]()
        tree: Callable[[], type[Config]] | None = names.get("tree")
        if tree is not None:
            _complete_keys(parser, [f"{key}=" for key in dotted_keys(tree())])
    finally:
        sys.path[:] = before
    return parser


def _complete_keys(parser: argparse.ArgumentParser, keys: list[str]) -> None:
    for action in parser._actions:
        if action.dest == "overrides":
            action.choices = keys
        elif isinstance(action.choices, dict):  # commands of a command
            inner: Any
            for inner in action.choices.values():
                _complete_keys(inner, keys)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))
    return parser


if __name__ == "__main__":
    run_script(main)
