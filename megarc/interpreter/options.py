"""The command-line options of interpreters and their sandbox, the same for every command."""

from __future__ import annotations

import argparse
import sys

from megarc.command_line import whole_number
from megarc.interpreter.languages import LanguagesConfig, open_languages
from megarc.interpreter.languages.base import Language
from megarc.interpreter.sandbox import Limits, Sandbox, open_sandbox
from megarc.paths import user_path


def add_interpreter_options(group: argparse._ActionsContainer) -> None:
    """Adds --seconds, --memory, --python, --coq, --smt, --lean, --lean-folder and --no-sandbox."""
    group.add_argument("--seconds", type=float, default=5.0, help="wall time of a piece (5)")
    group.add_argument(
        "--memory", type=whole_number, default=512, metavar="MIB", help="of each process (512)"
    )
    group.add_argument("--python", type=user_path, metavar="P", help="Python (the system's)")
    group.add_argument("--coq", type=user_path, metavar="P", help="coqtop (the system's)")
    group.add_argument("--smt", type=user_path, metavar="P", help="z3 (the system's or the wheel's)")
    group.add_argument("--lean", metavar="COMMAND", help="command that starts Lean's REPL")
    group.add_argument("--lean-folder", type=user_path, action="append", default=[], metavar="D",
                       help="a folder that Lean reads; may be given again")  # fmt: skip
    group.add_argument(
        "--no-sandbox", action="store_true", help="run code with all of your rights, if there is no sandbox"
    )


def open_interpreters(arguments: argparse.Namespace, names: str) -> tuple[dict[str, Language], Sandbox]:
    """The languages ``names`` (``python,coq``) and the sandbox that the options ask for.

    Raises:
        UserError: for a language that is unknown or not installed, and where there is no sandbox.
    """
    config = LanguagesConfig(
        python=arguments.python, coq=arguments.coq, smt=arguments.smt,
        lean=arguments.lean, lean_folders=arguments.lean_folder,
    )  # fmt: skip
    languages = open_languages(names.split(","), config)
    limits = Limits(seconds=arguments.seconds, memory=arguments.memory << 20)
    sandbox = open_sandbox(
        limits, without=arguments.no_sandbox, warn=lambda line: print(line, file=sys.stderr)
    )
    return languages, sandbox
