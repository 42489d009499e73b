"""job.sh's sweeps, without SLURM: srun and scontrol are scripts that print what they are given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("slurm")
    scripts = {
        "srun": '#!/bin/bash\nshift\nprintf "%s|" "$@" > words\nexec "$@"\n',
        "scontrol": f'#!/bin/bash\necho " Command={ROOT}/launch/job.sh "\n',
        # The run itself is not what is tried here; one under srun gets the signal before it listens.
        "python": f'#!/bin/bash\n[[ $1 == - ]] && exec {sys.executable} "$@"\n'
        "[[ $* == *--fate* ]] || { kill -USR1 $$; touch begun; }\nexit 0\n",
    }
    for name, content in scripts.items():
        (place / name).write_text(content)
        (place / name).chmod(0o755)
    lines = (
        "seed=1 optimizer.lr=3e-4\r\n\n'data.train=[{path: my text}]' folder=\"runs/a b\"  # quoted\nseed=4"
    )
    (place / "sweep.txt").write_bytes(lines.encode())
    return place


def sweep(place, task):
    environment = {
        **os.environ, "PATH": f"{place}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here",
        "MEGARC_PYTHON": f"{place}/python", "MEGARC_SWEEP": "sweep.txt", "SLURM_ARRAY_TASK_ID": str(task),
    }  # fmt: skip
    (place / "words").unlink(missing_ok=True)
    command = ["bash", str(ROOT / "launch" / "job.sh"), "--config", "x.yaml"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    words = (place / "words").read_text().split("|")[:-1] if (place / "words").exists() else None
    return done, words


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        (1, ["seed=1", "optimizer.lr=3e-4"]),
        (3, ["data.train=[{path: my text}]", "folder=runs/a b"]),
        (4, ["seed=4"]),
    ],
)
def test_a_task_takes_its_line(place, task, keys):
    done, words = sweep(place, task)
    assert done.returncode == 0, done.stderr
    assert words[-2 - len(keys) :] == ["--config", "x.yaml", *keys]


def test_usr1_before_a_rank_listens_does_not_end_it(place):
    """Where --time is 5 minutes or less, SLURM sends it at once."""
    (place / "begun").unlink(missing_ok=True)
    done, _ = sweep(place, 1)
    assert done.returncode == 0 and (place / "begun").exists() and "srun ended" not in done.stdout, (
        done.stdout
    )


@pytest.mark.parametrize("task", [0, 2, 5])
def test_a_task_without_keys_is_no_run(place, task):
    done, words = sweep(place, task)
    assert done.returncode == 2 and words is None
    assert f"sweep.txt has no keys for task {task}: it has 4 lines" in done.stderr
