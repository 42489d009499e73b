"""`launch/evaluate.py` and `launch/generate.py` on ranks that share windows: rank 0 says what one process says."""

import json
import subprocess
import sys

import pytest
from support import processes
from support.scripts import ENVIRONMENT, ROOT
from support.small_run import page

from megarc.errors import UserError
from megarc.rank_environment import free_port


def on_two_ranks(*command, code=0):
    """What each of two ranks printed to standard output."""
    place = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        processes.start(
            [sys.executable, *map(str, command)],
            env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [code, code], said
    return [out for out, _ in said] if code == 0 else [errors for _, errors in said]


def test_scores_and_texts(small_run, tmp_path, capsys):
    corpus = small_run.parent / "sums"
    words = ["--run", small_run, "--corpus", corpus, "--tokens", 200]
    page("launch/evaluate.py", *words, "--json", tmp_path / "one.json")
    heading = capsys.readouterr().out.splitlines()[0]
    said, nothing = on_two_ranks(
        "launch/evaluate.py", *words, "--context", 2, "--json", tmp_path / "two.json"
    )
    assert (said.splitlines()[0], nothing) == (heading, "")
    (one,), (two,) = (json.loads((tmp_path / f"{name}.json").read_text()).values() for name in ("one", "two"))
    assert one.keys() == two.keys() and one["tokens"] == two["tokens"] == 200
    assert two["nats_per_token"] == pytest.approx(one["nats_per_token"], rel=1e-5)
    words = ["--run", small_run, "--prompt", "12+3=", "--tokens", 30, "--seed", 2]
    page("launch/generate.py", *words)
    assert on_two_ranks("launch/generate.py", *words, "--context", 2) == [capsys.readouterr().out, ""]


def test_ranks_that_are_not_there_and_what_needs_one(small_run):
    for script in ("launch/evaluate.py", "launch/generate.py"):
        words = ["--corpus", "x"] if "evaluate" in script else ["--prompt", "a"]
        with pytest.raises(UserError, match="--context 3 does not divide the 1 ranks"):
            page(script, "--run", small_run, *words, "--context", 3)
    tasks = small_run.parent / "cloze.jsonl"
    first, other = on_two_ranks("launch/evaluate.py", "--run", small_run, "--tasks", tasks, code=2)
    assert "--tasks and --tiers run on one rank" in first and "error" not in other
