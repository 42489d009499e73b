"""elastic.sh on what SLURM sets, without SLURM: scontrol is a script, and job.sh prints its environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("a job")
    launch = place / "launch"
    launch.mkdir()
    shutil.copy(ROOT / "launch" / "elastic.sh", launch)
    (launch / "job.sh").write_text('printf "%s|" "$MEGARC_RANKS_PER_NODE" "$SLURM_CPUS_PER_TASK" "$@"\n')
    (place / "scontrol").write_text(f'#!/bin/bash\necho " Command={launch}/elastic.sh WorkDir=/"\n')
    (place / "scontrol").chmod(0o755)
    return place


def started(place, *words, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MEGARC_"))}
    environment = {**kept, "PATH": f"{place}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **more}
    command = ["bash", str(place / "launch" / "elastic.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("more", "ranks", "cores"),
    [
        ({"SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_ON_NODE": "64"}, "8", "8"),
        ({"SLURM_GPUS_ON_NODE": "0", "SLURM_CPUS_ON_NODE": "64"}, "1", "64"),
        ({"MEGARC_RANKS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_ON_NODE": "1"}, "2", "1"),
        ({}, "1", "1"),
    ],
)
def test_ranks_of_a_node_are_its_gpus_or_as_given(place, more, ranks, cores):
    words = ["--config", "x y.yaml", "data.train=[{path: 'my \"text\"'}]"]
    done = started(place, *words, MEGARC_ROOT=str(place), **more)
    assert (done.returncode, done.stdout) == (0, "|".join([ranks, cores, *words, ""])), done.stderr


@pytest.mark.parametrize("ranks", ["0", "-1", "two", "08", "1.5", "a[$(touch evil)]"])
def test_what_is_no_number_of_ranks_is_refused(place, ranks):
    done = started(place, MEGARC_ROOT=str(place), MEGARC_RANKS_PER_NODE=ranks, SLURM_CPUS_ON_NODE="8")
    assert done.returncode == 2 and f"error: MEGARC_RANKS_PER_NODE is '{ranks}'" in done.stderr
    assert done.stdout == "" and "division" not in done.stderr


def test_a_checkout_in_a_folder_with_a_space_needs_its_name(place):
    """SLURM does not say where the script's name ends and its words begin."""
    done = started(place)
    assert done.returncode == 2 and "give the checkout's folder as MEGARC_ROOT=FOLDER" in done.stderr
