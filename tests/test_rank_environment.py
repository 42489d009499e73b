import pytest

from megarc.corpus.packing.job_array import this_part
from megarc.errors import UserError
from megarc.rank_environment import ALONE, read_rank_environment

TORCH = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}
SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({**TORCH, "TORCHELASTIC_RUN_ID": "x"}, "torchrun"),
        (TORCH, "deepspeed"),
        (SLURM, "slurm"),
        (MPICH, "mpich"),
        (OPEN_MPI, "openmpi"),
        # srun --mpi=pmi2 sets PMI's names too, without a local rank.
        ({**SLURM, "PMI_RANK": "3", "PMI_SIZE": "8"}, "mpich"),
        # A launcher inside another: the inner one counts. mpirun's helpers are one srun task a node.
        ({**TORCH, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}, "deepspeed"),
        ({**MPICH, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}, "mpich"),
    ],
)
def test_every_launcher_says_the_same(environment, launcher):
    place = read_rank_environment(environment)
    assert (place.rank, place.world, place.local_rank, place.launcher) == (3, 8, 1, launcher)


def test_alone():
    assert read_rank_environment({}) == ALONE
    # A batch script knows how many tasks its job has; it is not one of them.
    assert read_rank_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}) == ALONE


def test_a_pod_that_is_one_of_several_packs_its_part():
    pod = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "job-0"}
    assert this_part(None, pod) == (3, 8)
    with pytest.raises(UserError, match="LOCAL_RANK"):
        read_rank_environment(pod)


@pytest.mark.parametrize("change", [{"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": ""}, {"WORLD_SIZE": "0"}])
def test_half_an_environment_is_refused(change):
    with pytest.raises(UserError):
        read_rank_environment({**TORCH, **change})
    with pytest.raises(UserError):
        read_rank_environment({"RANK": "0"})
