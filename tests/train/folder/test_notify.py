"""A program of the user's is told how a run ended: JSON on standard input, no shell, and no harm where it fails."""

import json
import logging
import re
import sys

import pytest

from megarc.train import RunFolder
from megarc.train.folder.notify import notify

KEEP = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"


def told(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_ends_a_run_is_told_and_nothing_else(tmp_path):
    heard = tmp_path / "heard; touch shell"  # a shell would make another file of it
    folder = RunFolder(tmp_path, hook=[sys.executable, "-c", KEEP, str(heard)])
    folder.write_state("running", step=0)
    folder.write_state("finished", step=9, total=9)
    folder.record_failure("no more room", reason="hang", step=3)
    folder.tell("back", step=7, reason="loss is nan")
    assert [(one["event"], one["step"]) for one in told(heard)] == [
        ("finished", 9),
        ("failed", 3),
        ("back", 7),
    ]
    assert told(heard)[1]["error"] == "no more room" and told(heard)[1]["reason"] == "hang"
    assert {one["run"] for one in told(heard)} == {str(tmp_path)} and not (tmp_path / "shell").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no/such/program"], "was not told of 'saved'"),
        ([sys.executable, "-c", "import sys; sys.exit('no network')"], "exit code 1 .*: no network"),
    ],
)
def test_a_program_that_fails_is_a_warning(command, words, caplog):
    with caplog.at_level(logging.WARNING):
        notify(command, "saved", {"step": 1})
    assert re.search(words, caplog.text)


def test_a_program_that_it_leaves_running_is_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr("megarc.train.folder.notify._PATIENCE", 5.0)
    script = "import subprocess, sys; subprocess.Popen(['sleep', '30']); sys.exit('it goes on')"
    with caplog.at_level(logging.WARNING):
        notify([sys.executable, "-c", script], "saved", {"step": 1})
    assert "exit code 1 when told of 'saved': it goes on" in caplog.text
