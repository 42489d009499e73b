#!/usr/bin/env bash
# A run under SLURM on as many nodes as there are: launch/job.sh for a job whose number of nodes may change.
#
#   sbatch --nodes 2-4 launch/elastic.sh --config configs/runs/talk.yaml folder=runs/talk batch.micro=4
#   MEGARC_RANKS_PER_NODE=2 sbatch --nodes 2-4 --gpus-per-node 0 launch/elastic.sh --config FILE       no GPUs
#
# Each time the job starts, SLURM gives it between 2 and 4 nodes, and the run goes on with that many: other data ranks,
# the same order and the same batch. When a node is lost, SLURM puts the job back into the queue, and it starts with
# those that are left. Leave parallel.world and parallel.data out, give batch.micro (its memory is then the same on any
# number of nodes), and choose a batch that every number of data ranks divides into micro-batches.
#
# job.sh asks SLURM for a number of tasks. SLURM (seen with 22.05) keeps that number when it puts a job back, and waits
# until there are as many nodes as before. Here it counts nodes alone, and srun starts the ranks of each: one for each
# GPU, or MEGARC_RANKS_PER_NODE. Whole nodes, therefore.
#
#SBATCH --job-name=megarc
#SBATCH --exclusive                 # all cores of each node
#SBATCH --gpus-per-node=8           # 0 on a cluster without GPUs
#SBATCH --time=24:00:00             # 90, 1:30:00 or 2-00:00:00
#SBATCH --signal=USR1@300           # to every rank, 300 s before the end: time for a step and a checkpoint
#SBATCH --requeue                   # after a node's failure or a preemption
#SBATCH --open-mode=append          # the job that goes on writes to the same log
#SBATCH --output=%x-%j.log          # here; each rank's own log is in the run folder

if [[ -n ${SLURM_NTASKS:-} ]]; then
    echo "error: --ntasks and --ntasks-per-node fix the number of nodes: leave them out, and say MEGARC_RANKS_PER_NODE=8," \
        "or use launch/job.sh" >&2
    exit 2
fi
gpus=${SLURM_GPUS_ON_NODE:-0}
[[ $gpus == 0 ]] && gpus=1 # a node without GPUs: one rank
export MEGARC_RANKS_PER_NODE=${MEGARC_RANKS_PER_NODE:-$gpus}
if [[ ! $MEGARC_RANKS_PER_NODE =~ ^[1-9][0-9]{0,3}$ ]]; then
    echo "error: MEGARC_RANKS_PER_NODE is '$MEGARC_RANKS_PER_NODE', not a number of ranks of each node; give 1 to 9999" >&2
    exit 2
fi
export SLURM_CPUS_PER_TASK=$((SLURM_CPUS_ON_NODE > MEGARC_RANKS_PER_NODE ? SLURM_CPUS_ON_NODE / MEGARC_RANKS_PER_NODE : 1))
script=$(scontrol show job -o "$SLURM_JOB_ID" | sed -n '1s/.* Command=\([^ ]*\).*/\1/p')
job=${MEGARC_ROOT:+$MEGARC_ROOT/launch/job.sh}
job=${job:-$(dirname "$script")/job.sh}
if [[ ! -f $job ]]; then
    echo "error: there is no $job; where a folder's name has a space, give the checkout's folder as MEGARC_ROOT=FOLDER," \
        "and keep job.sh beside elastic.sh" >&2
    exit 2
fi
exec bash "$job" "$@"
