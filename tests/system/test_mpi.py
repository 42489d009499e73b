"""mpirun starts the same run; the mpich wheel brings one."""

import importlib.util

import pytest
from support.scripts import BIN, PRETRAIN, losses, run

absent = (
    "" if (BIN / "mpiexec").exists() and importlib.util.find_spec("mpi4py") else "pip install mpi4py mpich"
)

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(absent), reason=absent)]


def test_mpirun_trains_what_one_process_trains(keys, place, alone):
    folder = place / "mpirun"
    words = ["-n", 2, BIN / "python", *PRETRAIN, *keys, f"folder={folder}", "parallel.zero=3"]
    said = run(BIN / "mpiexec", *words)
    assert "2 ranks by mpich" in said
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-5)
