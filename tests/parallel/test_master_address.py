import sys

import pytest

from megarc.errors import UserError
from megarc.parallel.master_address import address_of, first_host, port_of_job
from megarc.rank_environment import ALONE, RankEnvironment

SLURM = RankEnvironment(1, 4, 0, "slurm")
STEP = {"SLURM_STEP_NODELIST": "localhost,n[1-2]", "SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[1-2]", "n1"),
        ("n[01-03,7]-ib,m2", "n01-ib"),
        ("gpu-a[11,14]", "gpu-a11"),
    ],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first


def test_where_ranks_meet():
    assert address_of(ALONE, {}) is None
    assert address_of(SLURM, STEP) == ("localhost", port_of_job(STEP))
    # What somebody set wins, also half of it.
    assert address_of(SLURM, {**STEP, "MASTER_ADDR": "h", "MASTER_PORT": "5"}) == ("h", 5)
    assert address_of(SLURM, {**STEP, "MASTER_PORT": "5"}) == ("localhost", 5)


def test_jobs_and_steps_of_one_node_do_not_share_a_port():
    ports = {
        port_of_job({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        for job in range(500)
        for step in range(8)
    }
    assert len(ports) == 4000 and min(ports) >= 10_000 and max(ports) < 32_768


@pytest.mark.parametrize(
    ("place", "environment"),
    [
        (RankEnvironment(0, 2, 0, "deepspeed"), {"MASTER_ADDR": "h"}),
        (RankEnvironment(0, 2, 0, "torchrun"), {"MASTER_ADDR": "h", "MASTER_PORT": "high"}),
        (SLURM, {"SLURM_STEP_NODELIST": ""}),
        (SLURM, {**STEP, "SLURM_STEP_NODELIST": "no-such-host-anywhere"}),
    ],
)
def test_an_address_that_nobody_tells(place, environment, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="MASTER_"):
        address_of(place, environment)


def test_mpirun_without_mpi4py_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match="pip install mpi4py"):
        address_of(RankEnvironment(0, 2, 0, "mpich"), {})
