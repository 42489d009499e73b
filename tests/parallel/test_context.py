"""Keys and values of a window, from the ranks that share its rows."""

import subprocess
import sys
from pathlib import Path

import torch
from support.processes import start

from megarc.parallel import Group
from megarc.parallel.context import RankRows
from megarc.rank_environment import free_port

WORKER = Path(__file__).with_name("context_worker.py")


def test_a_sliding_window_is_counted_from_a_rows_own_number():
    numbers = torch.tensor([0, 1, 6, 7])
    end = (numbers + 1).to(torch.int32)[None]
    rows = RankRows(torch.zeros_like(end), end, numbers, torch.arange(8), Group(0, 2))
    assert rows.under(3).begin.tolist() == [[0, 0, 4, 5]]
    assert rows.under(None) is rows and rows.under(8) is rows


def test_two_ranks_read_one_window():
    """Attention's output and gradients of two real ranks equal those of one, whatever rows each has."""
    port = str(free_port())
    ranks = [
        start(
            [sys.executable, str(WORKER), str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), outputs
    assert [output.split() for output in outputs] == [["equal"] * 4] * 2
