"""Packing under mpirun: two processes make what one makes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from megarc.corpus.packing.job_array import this_part
from megarc.errors import UserError

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which(
    "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


def mpi_absent() -> str:
    """Why MPI cannot be tried here, or nothing."""
    if importlib.util.find_spec("mpi4py") is None or MPIEXEC is None:
        return "mpi4py or mpiexec is absent: pip install mpi4py mpich"
    return ""


@pytest.mark.parametrize(
    ("told", "environment", "part"),
    [
        (None, {}, (0, 1)),
        ("3/8", {"PMI_RANK": "0", "PMI_SIZE": "2"}, (3, 8)),
        ("none", {"PMI_RANK": "1", "PMI_SIZE": "2"}, (0, 1)),
        (None, {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, (1, 2)),
        ("auto", {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "0"}, (5, 6)),
        # A batch script is not one of its tasks.
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),
    ],
)
def test_the_part_is_found(told, environment, part):
    assert this_part(told, environment) == part


@pytest.mark.parametrize("told", ["8/8", "-1/2", "1", "a/b", "1/2/3", "/2", ""])
def test_what_is_no_part_is_refused(told):
    with pytest.raises(UserError, match="--part"):
        this_part(told, {})


@pytest.mark.skipif(bool(mpi_absent()), reason=mpi_absent())
@pytest.mark.parametrize("how", ["mpi", "auto"])
def test_two_mpi_processes_equal_one(tmp_path, how):
    texts = [f"document {i} " * (i % 50) for i in range(20000)]
    (tmp_path / "l.jsonl").write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    tool = [sys.executable, str(ROOT / "data_tools" / "preprocess.py"), "--input", str(tmp_path / "l.jsonl")]
    tool += ["--tokenizer-model", "bytes", "--append-eod", "--output-prefix"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for command in (
        [*tool, str(tmp_path / "one")],
        [str(MPIEXEC), "-n", "2", *tool, str(tmp_path / "two"), "--part", how],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
    for suffix in ("bin", "idx", "json"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    assert not (tmp_path / "two.parts").exists()
