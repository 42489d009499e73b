"""Steps that a run has left, since it went on from before them."""

import pytest
from support.ranks import run_jobs
from support.runs import pretrain

from megarc.train.checkpoint import Course, Standing, latest
from megarc.train.checkpoint.layout import write_manifest


@pytest.mark.parametrize(
    ("course", "step", "others", "left"),
    [
        (Course(1, 0), 10, [], False),
        (Course(1, 0), 10, [Course(1, 0)], False),
        (Course(1, 0), 10, [Course(2, 10)], False),  # went on from that very step
        (Course(1, 0), 10, [Course(2, 9)], True),
        (Course(1, 0), 9, [Course(2, 9), Course(3, 12)], False),
        (Course(2, 9), 12, [Course(1, 0), Course(3, 12)], False),
        (Course(0, 0), 10, [Course(3, 4)], True),  # of an earlier megarc
    ],
)
def test_a_later_start_from_before_a_step_leaves_it(course, step, others, left):
    assert course.left_before(step, others) is left


@pytest.mark.parametrize(("facts", "course"), [({}, (0, 0)), ({"course": {"start": 3, "begin": 7}}, (3, 7))])
def test_a_manifest_tells_its_course(tmp_path, facts, course):
    write_manifest(tmp_path, [], Standing(9, 72), {"config": {}, **facts})
    assert Course.of(tmp_path) == course


def test_a_start_counts_from_the_checkpoint_where_the_folder_knows_less(tmp_path):
    """Brought from a store into a fresh folder, a checkpoint is of a later start than that folder has seen."""
    run = tmp_path / "run"
    for steps, course in ((2, (1, 0)), (4, (2, 2))):
        run_jobs([pretrain(run, 0, steps)], 1, tmp_path)
        assert Course.of(latest(run / "checkpoints").folder) == course
        (run / "environment.json").unlink()
