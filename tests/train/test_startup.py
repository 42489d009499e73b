import logging

import pytest

from megarc.rank_environment import ALONE, RankEnvironment
from megarc.train.startup import speak


@pytest.fixture(autouse=True)
def handlers():
    """pytest's own handlers stay, and what a test adds goes."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before


def test_a_second_run_in_one_process_says_each_line_once(capsys):
    for _ in range(2):
        speak(ALONE)
    logging.getLogger("megarc").info("a line")
    assert capsys.readouterr().err.splitlines() == ["a line"]


def test_other_ranks_only_warn(capsys):
    speak(RankEnvironment(rank=3, world=4, local_rank=3, launcher="torchrun"))
    logging.getLogger("megarc").info("a line")
    logging.getLogger("megarc").warning("a warning")
    assert capsys.readouterr().err.splitlines() == ["rank 3: a warning"]
