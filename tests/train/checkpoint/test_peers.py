"""Copies on other hosts' disks, with each rank as if on a host of its own; real hosts: tests/system/test_peers.py."""

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, pretrain

from megarc.config import load
from megarc.errors import UserError
from megarc.train import RunConfig

# ZeRO 1 and 2 keep the same parts, and stages and the damaged disks below have ZeRO 1. What tensor ranks write on hosts
# of their own: test_fragments.py.
LAYOUTS = {
    "z0": (0, {}),
    "z3": (3, {}),
    "pipeline": (1, {"parallel__pipeline": 2}),
}
NEWEST = "*/{}step-*/*.safetensors"


def keys(place):
    return {
        "checkpoint__local": f"{place}/disk-$RANK",
        "checkpoint__local_every": "1 steps",
        "checkpoint__peers": 1,
        "checkpoint__background": False,  # else a copy may be left out while the one before it is on its way
    }


def jobs_of(place, zero, more):
    """A run of 4 steps, of which the shared checkpoints and one host's disk are then lost, goes on to step 6."""
    run, files = place / "run", {"two_files": zero == 3}
    lost = [
        {"do": "forget", "folder": str(run / "checkpoints")},
        {"do": "forget", "folder": f"{place}/disk-1"},
    ]
    return [
        {**pretrain(run, zero, 4, **keys(place), **more), **files},
        *lost,
        {**pretrain(run, zero, 6, **keys(place), **more), **files, "announce": True},
        pretrain(place / "clean", zero, 6, **more),
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What was said, and the folder of all runs."""
    place = tmp_path_factory.mktemp("peers")
    jobs = [job for name, (zero, more) in LAYOUTS.items() for job in jobs_of(place / name, zero, more)]
    # The newest of a host is damaged on its own disk, and whole on the other's.
    own, run, other = place / "own", place / "own" / "run", place / "other" / "run"
    start = pretrain(run, 1, 4, **keys(own))
    jobs += [
        start,
        {"do": "forget", "folder": str(run / "checkpoints")},
        {"do": "flip", "folder": f"{own}/disk-1", "glob": NEWEST.format("")},
        {**pretrain(run, 1, 5, **keys(own)), "announce": True},
        # Its disk is lost, and the newest copy is damaged: the one before it.
        {"do": "forget", "folder": str(run / "checkpoints")},
        {"do": "forget", "folder": f"{own}/disk-1"},
        {"do": "flip", "folder": f"{own}/disk-0", "glob": NEWEST.format("peers/rank-00001/")},
        {**pretrain(run, 1, 6, **keys(own)), "announce": True},
        pretrain(own / "clean", 1, 6),
        # Another ZeRO stage needs other parts than the copies hold: there is no shared one, so it begins again.
        pretrain(other, 1, 4, **keys(place / "other")),
        {"do": "forget", "folder": str(other / "checkpoints")},
        {"do": "move", "folder": f"{place}/other/disk-1", "to": f"{place}/other/away"},
        {**pretrain(other, 3, 2, **keys(place / "other")), "announce": True},
        # It has left step 3 of before. Then the other host comes back, with its old disk.
        {**pretrain(other, 1, 4, **keys(place / "other")), "announce": True},
        {"do": "forget", "folder": str(other / "checkpoints")},
        {"do": "move", "folder": f"{place}/other/away", "to": f"{place}/other/disk-1"},
        {**pretrain(other, 1, 5, **keys(place / "other")), "announce": True},
        {**pretrain(run, 1, 6, **(keys(own) | {"checkpoint__peers": 2})), "announce": True, "may_fail": True},
    ]  # fmt: skip
    return place, run_jobs(jobs, 2, place).split("-- start run\n")[1:]


@pytest.mark.parametrize("number", range(len(LAYOUTS)), ids=list(LAYOUTS))
def test_a_lost_host_goes_on_from_the_copy_on_the_other(output, number):
    place, said = output
    assert "resumes from step 3 " in said[number], said[number]  # step 4 was saved in the shared folder
    folder = place / list(LAYOUTS)[number]
    expected, found = full_state(folder / "clean"), full_state(folder / "run")
    assert expected.keys() == found.keys()
    assert all(torch.equal(values, expected[part]) for part, values in found.items())


def test_damage_on_the_own_disk_is_mended_by_the_copy(output):
    assert "resumes from step 3 " in output[1][len(LAYOUTS)]


def test_a_damaged_copy_is_never_used(output):
    said = output[1][len(LAYOUTS) + 1]
    assert "resumes from step 3 " in said, said  # of 4, the copy is damaged
    state = output[0] / "own"
    expected = full_state(state / "clean")
    assert all(torch.equal(values, expected[part]) for part, values in full_state(state / "run").items())


def test_copies_for_another_layout_are_not_used(output):
    said = output[1][len(LAYOUTS) + 2]
    assert "resumes from" not in said and "lies on the hosts' own disks" not in said


def test_a_step_that_the_run_has_left_is_not_used(output):
    """Step 3 lay whole on both hosts, of the course before the run went on from step 2."""
    assert "resumes from step 2 " in output[1][len(LAYOUTS) + 3]


def test_a_disk_that_comes_back_brings_no_part_of_a_course_that_was_left(output):
    assert "resumes from step 3 " in output[1][len(LAYOUTS) + 4]
    assert (
        "/step-000000003 was brought back from" in (output[0] / "other/run/ranks/rank-00001.log").read_text()
    )


def test_more_copies_than_other_hosts_are_refused(output):
    assert "checkpoint.peers 2 needs 3 hosts" in output[1][-1] and "use checkpoint.peers=1" in output[1][-1]


def test_copies_of_nothing_are_refused():
    with pytest.raises(
        UserError, match=r"checkpoint\.peers 1 copies.*checkpoint\.local is not given; name a folder"
    ):
        load(RunConfig, None, ["checkpoint.peers=1"])
