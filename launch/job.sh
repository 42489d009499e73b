#!/usr/bin/env bash
# A run under SLURM; everything after the script's name goes to `megarc pretrain` (launch/pretrain.py). It works from a
# checkout, and as the copy that `megarc init` makes where megarc is installed:
#
#   sbatch launch/job.sh --config configs/runs/talk.yaml folder=runs/talk
#   sbatch --nodes 16 --time 2-00:00:00 --partition gpu launch/job.sh --config FILE parallel.world=128
#   MEGARC_PYTHON="apptainer exec --nv megarc.sif python" sbatch launch/job.sh --config FILE
#   MEGARC_SWEEP=sweep.txt sbatch --array 1-3 launch/job.sh --config FILE     # task i takes line i of the file too
#
# For a number of nodes that may change from start to start (--nodes 2-4): launch/elastic.sh.
# Options of sbatch win over the lines below. It works from any folder: paths are those of where sbatch is called.
# The job goes on by itself: five minutes before its time is up (or when it is preempted) all ranks save, and it is
# put in the queue again, until the run is finished.
#
#SBATCH --job-name=megarc
#SBATCH --nodes=1                   # hosts
#SBATCH --ntasks-per-node=8         # ranks of a host: one for each GPU
#SBATCH --gpus-per-node=8           # 0 on a cluster without GPUs
#SBATCH --cpus-per-task=4           # a rank's own threads: DeepSpeed, the reader ahead, the checkpoint's writer
#SBATCH --time=24:00:00             # 90, 1:30:00 or 2-00:00:00
#SBATCH --signal=USR1@300           # to every rank, 300 s before the end: time for a step and a checkpoint
#SBATCH --requeue                   # after a node's failure or a preemption
#SBATCH --open-mode=append          # the job that goes on writes to the same log
#SBATCH --output=%x-%j.log          # here; each rank's own log is in the run folder

set -uo pipefail

# SLURM runs a copy of this file; the original lies in the checkout or in the folder that `megarc init` filled.
script=$(scontrol show job -o "$SLURM_JOB_ID" | sed -n '1s/.* Command=\([^ ]*\).*/\1/p')
root=${MEGARC_ROOT:-$(cd "$(dirname "$script")/.." && pwd)}

# One variable says how Python is called: conda run -n NAME python, a container's. Without it: the checkout's .venv, else
# the python that was active where sbatch was called.
default=python
[[ -x $root/.venv/bin/python ]] && default=$root/.venv/bin/python
read -r -a python <<<"${MEGARC_PYTHON:-$default}"
if [[ -f $root/launch/pretrain.py ]]; then
    pretrain=("${python[@]}" "$root/launch/pretrain.py" "$@")
else
    pretrain=("${python[@]}" -m megarc pretrain "$@")
fi
if [[ -n ${MEGARC_SWEEP:-} ]]; then
    # Words as a shell has them, so that quotes hold a value together; a task without a line of its own is no run.
    mapfile -t more < <("${python[@]}" - "$MEGARC_SWEEP" "${SLURM_ARRAY_TASK_ID:?MEGARC_SWEEP needs sbatch --array}" <<'END'
import shlex, sys

file, task = sys.argv[1], int(sys.argv[2])
lines = open(file, encoding="utf-8").read().splitlines()
words = shlex.split(lines[task - 1], comments=True) if 1 <= task <= len(lines) else []
if not words:
    sys.exit(f"error: {file} has no keys for task {task}: it has {len(lines)} lines, counted from 1")
print("\n".join(words))
END
    )
    [[ ${#more[@]} -gt 0 ]] || exit 2
    pretrain+=("${more[@]}")
fi

if [[ -d $root/megarc ]]; then # a checkout that is not installed
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONUNBUFFERED=1                                   # a line is in the log when it is said
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}} # else every rank takes all cores of the host
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}         # srun no longer takes it from sbatch by itself
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}                       # its errors name the peer; INFO tells the paths it found
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1                    # a collective that failed ends its rank, not: waits
export TORCH_FR_BUFFER_SIZE=${TORCH_FR_BUFFER_SIZE:-2000}    # the last collectives of each rank, for a post-mortem
# Where hosts have several networks, say which: export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 before sbatch.

cancelled=
trap 'cancelled=1' TERM   # scancel; the ranks get it too

started=$(date +%s)
echo "job $SLURM_JOB_ID, try $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST: ${pretrain[*]}"

# srun starts every rank itself: a launcher in between would lose signals and exit codes. When one rank dies the
# others are ended. USR1 comes at once where --time is 5 minutes or less, and would end a rank that does not listen yet.
# launch/elastic.sh says how many ranks a node has; otherwise SLURM knows.
srun --kill-on-bad-exit=1 ${MEGARC_RANKS_PER_NODE:+--ntasks-per-node="$MEGARC_RANKS_PER_NODE"} \
    bash -c 'trap "" USR1; exec "$@"' bash "${pretrain[@]}"
code=$?

# How it ended is read from the run folder, not guessed from a code that may be any rank's.
"${pretrain[@]}" --fate --since "$started"
fate=$?
if [[ $fate == 75 && -z $cancelled ]]; then
    echo "stopped and saved: the job goes back to the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
[[ $fate == 0 ]] || echo "srun ended with $code; logs of all ranks: ranks/ in the run folder"
exit "$fate"
