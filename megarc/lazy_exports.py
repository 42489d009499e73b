"""Doors of a room that open when they are used: so that reading keys imports no torch."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def open_when_used(name: str, file: str) -> None:
    """Makes each name that ``__init__.py`` (``file``) of the package ``name`` imports for type checkers alone,
    under ``if TYPE_CHECKING:``, one that is imported when somebody first asks for it.
    """
    module = sys.modules[name]
    module.__dict__["_origins"] = _imported_for_checkers(Path(file))
    module.__class__ = _Room


class _Room(ModuleType):
    _origins: dict[str, tuple[str, str]]

    def __getattr__(self, name: str) -> Any:
        origin = self.__dict__["_origins"].get(name)
        if origin is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(origin[0]), origin[1])
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # The import of a file sets it as its package's attribute. Where a door has a file's name
        # (``layers`` of ``layers.py``), the door counts.
        if not (isinstance(value, ModuleType) and name in self.__dict__["_origins"]):
            super().__setattr__(name, value)


def _imported_for_checkers(file: Path) -> dict[str, tuple[str, str]]:
    """Each name, the module that it is imported from, and its name there."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: (statement.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
