"""Steps that a run has left, since it went on from before them."""

import pytest

from megarc.train.checkpoint import Course, Standing
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
