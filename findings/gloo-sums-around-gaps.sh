#!/usr/bin/env bash
# torch 2.13.0: on gloo, all_reduce and broadcast of a slice such as x[:, :2] change elements outside of the slice, and
# leave out elements inside, without an error.
#
# Guess:   a tensor that is not contiguous is refused, or its own elements are summed.
# Seen:    gloo takes as many elements as the slice has, one behind the other in memory, from its first one on. Of two rows
#          of 4 of which the slice has 2 each, it sums the whole first row and nothing of the second. A transposed tensor,
#          whose memory has no gaps, is summed rightly. send raises RuntimeError.
# Matters: wrong sums on a CPU from code that looks right; tests whose ranks have equal numbers do not notice.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 setuptools==80.9.0
cat >"$folder/look.py" <<'PY'
import socket
import sys

import torch
import torch.distributed as dist

EXPECTED = {
    "all_reduce of a slice": "[[11.0, 22.0, 33.0, 44.0], [50.0, 60.0, 70.0, 80.0]]",  # right: 11 22 30 40, 55 66 70 80
    "broadcast of a slice": "[[1.0, 2.0, 3.0, 4.0], [50.0, 60.0, 70.0, 80.0]]",  # right: 1 2 30 40, 5 6 70 80
    "all_reduce of a transposed tensor": "[[11.0, 22.0, 33.0, 44.0], [55.0, 66.0, 77.0, 88.0]]",
    "send of a slice": "RuntimeError: input tensor has to be contiguous",
}


def exchange(slice_, rank):
    dist.recv(slice_, 0) if rank else dist.send(slice_, 1)


CALLS = (
    lambda x, rank: dist.all_reduce(x[:, :2]),
    lambda x, rank: dist.broadcast(x[:, :2], 0),
    lambda x, rank: dist.all_reduce(x.t()),
    lambda x, rank: exchange(x[:, :2], rank),
)


def main(rank, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    same = True
    for (name, expected), call in zip(EXPECTED.items(), CALLS):
        x = torch.arange(1.0, 9.0).view(2, 4) * 10.0**rank
        try:
            call(x, rank)
            seen = str(x.tolist())
        except RuntimeError as error:
            seen = f"RuntimeError: {error}"
        if rank == 1:
            print(f"{name}: the second rank has {seen}", flush=True)
            same &= seen == expected
    dist.destroy_process_group()
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print("torch", torch.__version__, flush=True)
    torch.multiprocessing.spawn(main, (port,), nprocs=2)
PY
export OMP_NUM_THREADS=1
status=0
"$folder/venv/bin/python" "$folder/look.py" 2>"$folder/errors" || status=1
[ $status = 0 ] && echo "as stated" || { tail -3 "$folder/errors"; echo "this has changed"; }
exit $status
