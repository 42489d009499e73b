"""Many runs side by side: the one loop behind studies of batches, tiers' controls, comparisons and grids.

In: configurations of runs, and the command that starts one. Out: finished run folders, or the names of the runs that
failed. Each is a normal run from a file of its own, here or as a task of a SLURM array; the same call resumes them.
"""

from megarc.jobs.run_jobs import Job, has_finished, run_all, side_by_side, start_of, words_of
from megarc.jobs.slurm_array import sbatch_options, submit

__all__ = [
    "Job",
    "has_finished",
    "run_all",
    "sbatch_options",
    "side_by_side",
    "start_of",
    "submit",
    "words_of",
]
