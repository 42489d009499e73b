"""Tests here run real interpreters in the real sandbox; where one is not installed they say so and are skipped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest

from megarc.errors import UserError
from megarc.interpreter.languages import Language, open_languages
from megarc.interpreter.sandbox import Limits, Sandbox, open_sandbox

TIGHT = Limits(
    seconds=5.0,
    memory=256 << 20,
    tree_memory=320 << 20,
    processes=16,
    open_files=32,
    file_bytes=1 << 20,
    disk_bytes=4 << 20,
    output_bytes=100_000,
    cpu_seconds=30,
)


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Tight limits, so that a test meets them soon."""
    try:
        return open_sandbox(TIGHT)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hasty(sandbox: Sandbox) -> Sandbox:
    """For pieces that have no end."""
    return replace(sandbox, limits=sandbox.limits.model_copy(update={"seconds": 1.0}))


@pytest.fixture(scope="session")
def language(sandbox: Sandbox) -> Callable[[str], Language]:
    """A language by its name, known to start here."""

    @functools.cache
    def find(name: str) -> Language:
        try:
            found = open_languages([name])[name]
            found.start(sandbox).stop()
        except UserError as error:
            pytest.skip(str(error))
        return found

    return find
