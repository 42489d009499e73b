"""One of two ranks that share windows: python context_worker.py RANK PORT. Prints "equal" for each case, or fails."""

import sys

import numpy as np
import torch
import torch.distributed as dist

from megarc.attention import attend
from megarc.interval import Intervals
from megarc.parallel import Group
from megarc.parallel.context import RankRows
from megarc.row_shares import row_shares, work_of_rows
from megarc.window import Narrowing

ROWS, SAMPLES = 96, 2


def main():
    torch.set_num_threads(1)
    rank, port = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    documents = np.repeat(np.arange(4), 24)[None].repeat(SAMPLES, 0).astype(np.int32)
    recent = np.array([30, 7], np.int32)
    for seen, sliding in (
        (Intervals.of(ROWS, np.array([0, 0], np.int32)), None),
        (Intervals.of(ROWS, recent), None),
        (Intervals.of(ROWS, recent, documents), 17),
        (Intervals.of(ROWS, recent, documents, (documents * 24 + 9).astype(np.int32)), None),
    ):
        compare(seen, sliding, rank)
        print("equal", flush=True)
    dist.destroy_process_group()


def compare(seen, sliding, rank):
    torch.manual_seed(1)
    q, k, v = (
        torch.randn(SAMPLES, heads, ROWS, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)
    )
    whole = (
        seen
        if sliding is None
        else Intervals(np.maximum(seen.begin, np.arange(ROWS) - sliding + 1), seen.end)
    )
    expected = attend(
        q, k, v, whole.map(lambda array: torch.as_tensor(array.astype(np.int32))), engine="reference"
    )
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (q, k, v), upstream)
    shares = row_shares(work_of_rows(seen, ROWS, SAMPLES, Narrowing(sliding)), 2)
    places = np.empty(ROWS, np.int64)
    places[np.concatenate(shares)] = np.arange(ROWS)
    own = torch.as_tensor(shares[rank])
    begin, end = (torch.as_tensor(array)[:, own] for array in (seen.begin, seen.end))
    rows = RankRows(begin, end, own, torch.as_tensor(places), Group(rank, 2)).under(sliding)
    mine = [one.detach()[:, :, own].requires_grad_() for one in (q, k, v)]
    keys, values = rows.of_window(*mine[1:])
    out = attend(mine[0], keys, values, rows)
    grads = torch.autograd.grad(out, mine, upstream[:, :, own])
    torch.testing.assert_close(out, expected[:, :, own])
    for found, full in zip(grads, wanted, strict=True):
        torch.testing.assert_close(found, full[:, :, own])


main()
