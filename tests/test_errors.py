"""How scripts end."""

import subprocess
import sys

import pytest

from megarc.errors import shortened

SCRIPT = """
import sys
from megarc.errors import UserError, run_script
def main():
    {body}
run_script(main)
"""


@pytest.mark.parametrize(
    ("body", "code", "said", "traceback"),
    [
        ("raise UserError('no such corpus: x')", 2, "error: no such corpus: x", False),
        ("raise KeyboardInterrupt", 130, "interrupted", False),
        ("raise ValueError('a bug')", 1, "ValueError: a bug", True),
        ("return 75", 75, "", False),
        ("return None", 0, "", False),
    ],
)
def test_exit(body, code, said, traceback):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert ("Traceback" in done.stderr) == traceback


def test_a_closed_pipe_ends_quietly():
    script = SCRIPT.format(body="[print('line') for _ in range(100_000)]")
    command = f'"{sys.executable}" -c "{script}" | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True)  # noqa: S602
    assert done.stdout == "line\n"
    assert done.stderr == ""


def test_import_costs_nothing():
    code = "import megarc, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_long_text_is_bounded_and_keeps_both_ends():
    assert shortened("x" * 2000) == "x" * 2000
    text = shortened("begin " + "x" * 240_000 + " end")
    assert text.startswith("begin ") and text.endswith(" end") and len(text) < 2100
    assert "238010 characters left out" in text
