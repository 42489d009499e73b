"""Real processes meet in a real store: who is missing, who differs, whose port is taken."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from support import processes

from megarc.parallel.rank_check import differences
from megarc.parallel.rendezvous import describe_hosts, describe_ranks, listening
from megarc.rank_environment import free_port

WORKER = Path(__file__).with_name("meeting_worker.py")


def meet(world, *, start=None, port=None, patience=20, **job):
    """``start`` of ``world`` ranks; what each printed and its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = str(port or free_port())
    job = json.dumps({"patience": patience, **job})
    ranks = [
        processes.start(
            [sys.executable, str(WORKER), job],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=processes.PIPE,
            stderr=processes.PIPE,
            text=True,
        )
        for rank in range(start or world)
    ]
    told = [rank.communicate(timeout=100) for rank in ranks]
    return [(out, error, rank.returncode) for (out, error), rank in zip(told, ranks, strict=True)]


def test_ranks_meet_share_and_connect():
    ranks = meet(3)
    assert [code for _, _, code in ranks] == [0, 0, 0], ranks
    assert all("shared: of rank 0" in out for out, _, _ in ranks)
    host = socket.gethostname()
    assert f"present: {host} {host} {host}" in ranks[0][0]
    assert ranks[0][0].count("link") == 4  # one all-reduce, three sends


def assert_refused(ranks, *words):
    """All end with 2, and one rank alone speaks, without a traceback."""
    assert [code for _, _, code in ranks] == [2] * len(ranks), ranks
    said = [error for _, error, _ in ranks if "error:" in error]
    assert len(said) == 1 and "Traceback" not in said[0], ranks
    for word in words:
        assert word in said[0]


def test_a_mistake_of_rank_0_is_told_once():
    assert_refused(meet(2, mistake=0), "a mistake in the file")


def test_a_missing_rank_is_named_with_who_came():
    assert_refused(
        meet(4, start=3, patience=6),
        "1 of 4 ranks did not come",
        "rank 3;",
        f"{socket.gethostname()} (3 ranks)",
    )


def test_a_world_of_another_size():
    assert_refused(meet(2, expected=16), "16 ranks are expected", "2 came", "(2 ranks)")


def test_a_rank_with_other_code_is_named():
    assert_refused(meet(3, other=1), "megarc's code: rank 1 has changed, 2 of 3 have")


def test_ranks_end_together_when_one_cannot_go_on():
    assert_refused(meet(3, mistake_later=2), "only here", "rank 2 of 3")


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        ((_, error, code),) = meet(2, start=1, port=taken.getsockname()[1], patience=3)
    assert code == 2 and "in use" in error and "MASTER_PORT" in error


def test_nobody_at_the_address():
    port = free_port()
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    done = processes.run(
        [sys.executable, str(WORKER), json.dumps({"patience": 2})],
        env={**os.environ, **environment, "MASTER_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and f"cannot reach rank 0 at 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("ranks", "told"), [([], ""), ([4], "4"), ([0, 1, 2, 3, 7], "0-3, 7"), ([1, 3, 4], "1, 3-4")]
)
def test_ranks_in_a_few_words(ranks, told):
    assert describe_ranks(ranks) == told


def test_hosts_in_a_few_words():
    assert describe_hosts(["a", "a", "b"]) == "a (2 ranks), b (1 rank)"
    many = describe_hosts([f"n{i}" for i in range(1000) for _ in range(8)])
    assert "n0 (8 ranks)" in many and "988 more" in many and "n999" in many and len(many) < 300


def test_differences_name_the_few():
    facts = [{"torch": "2.13"}] * 5 + [{"torch": "2.11"}, {"torch": "2.13"}, {}]
    first, second = differences(facts)
    assert "rank 5 has 2.11, 6 of 8 have 2.13" in first and "rank 7 has absent" in second


@pytest.mark.parametrize(
    "host, there", [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1")]
)
def test_the_port_is_open_on_the_named_interface_alone(host, there):
    """torch's own store would listen on all of them."""
    try:
        descriptor = listening((host, free_port()))
    except OSError:
        pytest.skip(f"no {host} here")
    with socket.socket(fileno=descriptor) as listener:
        assert listener.getsockname()[0] in (there, "::1")


def test_a_name_that_means_loopback_here_alone_is_open_to_others(monkeypatch):
    """As Debian writes it into /etc/hosts; elsewhere it means this host's address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert listening(("node-1", 1)) is None


def test_an_address_of_another_host_is_told(caplog):
    assert listening(("192.0.2.1", free_port())) is None
    assert "not an address of this host" in caplog.text
