"""The tables of flags name keys and options that exist."""

import re
import subprocess
import sys

import pytest
from support.pages import DOCS
from support.scripts import ENVIRONMENT

from megarc.config import dotted_keys, load
from megarc.train import RunConfig

KEYS = set(dotted_keys(RunConfig))
ROWS = [
    cells[1].strip()
    for line in (DOCS / "coming-from-megatron.md").read_text().splitlines()
    if line.startswith("| ") and len(cells := line.strip("|").split("|")) == 3
]


def test_the_tables_are_read():
    assert len(ROWS) > 60


@pytest.mark.parametrize("cell", sorted({cell for cell in ROWS if cell not in ("megarc", "(none)")}))
def test_a_key_exists(cell):
    named = re.findall(r"`([^`]+)`", cell)
    assert named, cell
    for name in named:
        key, colon, value = name.partition(": ")
        if name.startswith(("megarc ", "--config", "base:")):
            continue
        assert key in KEYS, name
        if colon:
            load(RunConfig, None, [f"{key}={value}"])  # the value is one that the key takes


def test_options_of_commands_exist():
    options = {match for cell in ROWS for match in re.findall(r"`megarc ([\w-]+) (--[\w-]+)`", cell)}
    assert options
    for command, option in options:
        done = subprocess.run(
            [sys.executable, "-m", "megarc", command, "--help"],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )
        assert option in done.stdout
