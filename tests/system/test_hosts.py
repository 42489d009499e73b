"""Two hosts with a network between them: the deepspeed launcher, ssh, and what goes wrong on the way."""

import sys

import pytest
from support.scripts import BIN, ENVIRONMENT, PRETRAIN, losses, run

from .hosts import Hosts, absent

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(900),  # of a machine that is shared
]


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as two:
        yield two


@pytest.fixture
def hostfile(tmp_path):
    def write(text):
        path = tmp_path / "hostfile"
        path.write_text(text)
        return path

    return write


BOTH = "node-1 slots=2\nnode-2 slots=2\n"


@pytest.fixture
def deepspeed(hosts, tmp_path):
    """The launcher on the first host."""
    # It hands on only some of its environment; this file names the rest.
    told = tmp_path / "environment"
    told.write_text("OMP_NUM_THREADS=1\n")

    def launch(*words, **more):
        return run(
            *hosts.command(BIN / "deepspeed", *words), env={**ENVIRONMENT, "DS_ENV_FILE": str(told)}, **more
        )

    return launch


def test_deepspeed_over_ssh_trains_what_one_process_trains(deepspeed, hostfile, keys, place, alone):
    said = deepspeed(
        "--hostfile", hostfile(BOTH), *PRETRAIN, *keys, f"folder={place}/hostfile", "parallel.world=4"
    )
    assert "4 ranks by deepspeed: node-1 (2 ranks), node-2 (2 ranks)" in said
    assert losses(place / "hostfile") == pytest.approx(losses(alone), rel=1e-5)


def test_a_slow_link_is_named(hosts, deepspeed, hostfile):
    hosts.slow_down(1)
    try:
        said = deepspeed("--hostfile", hostfile(BOTH), *PRETRAIN, "--check")
    finally:
        hosts.full_speed(1)
    # Inside of a host, processors that are busy elsewhere may look like a slow link, too.
    between = [
        line for line in said.splitlines() if "slow link" in line and "node-1" in line and "node-2" in line
    ]
    assert len(between) == 1 and "slow link: data send rank 3 (node-2) -> rank 0 (node-1)" in between[0], said


def test_a_folder_that_only_one_host_sees(hosts, deepspeed, hostfile, keys, place):
    hidden = place / "hidden"
    hidden.mkdir()
    run(*hosts.command("mount", "-t", "tmpfs", "none", hidden, host=1))
    said = deepspeed("--hostfile", hostfile(BOTH), *PRETRAIN, *keys, f"folder={hidden}/run", code=2)
    assert "is not there on node-2" in said and "(rank 2-3 of 4)" in said


def test_a_host_that_never_starts(deepspeed, hostfile):
    said = deepspeed("--hostfile", hostfile(BOTH), "--no_ssh", "--node_rank", 0, "--master_addr", "node-1",
                     *PRETRAIN, "--patience", 20, code=2)  # fmt: skip
    assert "2 of 4 ranks did not come within 20 s: rank 2-3; there are node-1 (2 ranks)" in said


def test_a_missing_hostfile_does_not_train_alone(deepspeed, keys, tmp_path):
    words = [*PRETRAIN, *keys, "parallel.world=4", f"folder={tmp_path}/run"]
    said = deepspeed("--hostfile", tmp_path / "none", *words, code=2)
    assert "4 ranks are expected" in said and "1 came: node-1 (1 rank); was the hostfile found" in said
    assert not (tmp_path / "run").exists()


def test_hosts_are_asked_before_a_run(hosts, hostfile):
    ask = hosts.command(sys.executable, "launch/hosts.py")
    assert "2 hosts, 4 ranks: say parallel.world=4" in run(*ask, hostfile(BOTH))
    said = run(*ask, hostfile("node-1 slots=2\ngone slots=2\n"), code=2)
    assert "1 of 2 hosts cannot take part: gone" in said
    assert "add up to 4, not to 16" in run(*ask, hostfile(BOTH), "--world", 16, code=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [("# nobody\n", "names no host"), ("node-1\n", "is not a valid entry"), (BOTH + BOTH, "is listed twice")],
)
def test_a_hostfile_that_is_none(hostfile, text, told):
    assert told in run(sys.executable, "launch/hosts.py", hostfile(text), code=2)
