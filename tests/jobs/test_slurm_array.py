"""Arrays, with stand-ins for sbatch and squeue; tests/system has a real SLURM."""

import argparse

import pytest

from megarc.command_line import parsed
from megarc.config import build
from megarc.errors import UserError
from megarc.jobs import Job, sbatch_options, submit
from megarc.train import RunConfig


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """What squeue says is in a file; sbatch gives the number 7 and keeps its words."""
    queue, called = tmp_path / "queue", tmp_path / "called"
    queue.touch()
    commands = {"squeue": f'cat "{queue}"', "sbatch": f'echo "$@" >> "{called}"; echo "7;cluster"'}
    for name, line in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return queue, called


def jobs(folder, seeds):
    tree = {"length": "4 steps", "data": {"train": [{"kind": "pointer_chase"}]}}
    runs = ({**tree, "seed": seed, "folder": str(folder / f"s{seed}")} for seed in seeds)
    return [Job(build(RunConfig, run, "test"), 4) for run in runs]


def test_an_array_whose_tasks_wait_keeps_its_lines(tmp_path, slurm):
    """A task reads its line when it begins: with the lines of a later array it would be another run, or none."""
    queue, called = slurm
    two, script = jobs(tmp_path, (0, 1)), tmp_path / "job.sh"
    assert submit(two, script, ["--time", "60"], tmp_path) == "7"
    before = (tmp_path / "array.txt").read_text()
    queue.write_text("7_1 RUNNING\n7_2 PENDING\n")
    with pytest.raises(UserError, match=r"job 7 of .* still has 2 tasks in the queue.*scancel 7"):
        submit(two[1:], script, [], tmp_path)
    assert (tmp_path / "array.txt").read_text() == before and len(called.read_text().splitlines()) == 1
    queue.write_text("")
    submit(two[1:], script, [], tmp_path)
    first, second = called.read_text().splitlines()
    assert "--array=1-2 " in first and first.endswith(f"--time 60 {script}") and "--array=1-1 " in second
    assert (tmp_path / "array.txt").read_text() == before.splitlines(keepends=True)[1]


def test_options_that_are_none_are_refused_with_how_they_are_written(monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument("--submit", nargs="?", const="")
    parser.add_argument("keys", nargs="*")
    monkeypatch.setattr("sys.argv", ["study", "--submit", "--time=60", "--hold"])
    with pytest.raises(UserError, match=r"no flag --time=60; .*--submit='--time=60 --hold'"):
        parsed(parser)
    monkeypatch.setattr("sys.argv", ["study", "--submit=--time=60 --hold", "seeds=5"])
    assert sbatch_options(parsed(parser).submit) == ["--time=60", "--hold"] and sbatch_options("") == []
    with pytest.raises(UserError, match="'seeds=5' is none; write keys before --submit"):
        sbatch_options("seeds=5")
    with pytest.raises(UserError, match=r"--submit .* No closing quotation"):
        sbatch_options("--comment 'a")
