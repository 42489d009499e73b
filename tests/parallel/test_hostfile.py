"""A hostfile as deepspeed takes it, and hosts whose login shells talk: here ssh is a script."""

import json
import sys

import pytest

from megarc.errors import UserError
from megarc.parallel import ask_hosts, read_hostfile

SSH = f"""#!{sys.executable}
import sys, subprocess
host, remote = sys.argv[-2:]
if host == "silent":
    sys.exit(0)
print("Welcome to", host)
if host == "far":
    remote = remote.replace("socket.getaddrinfo(name, None)", "[(0, 0, 0, 0, (\\"fd00::17\\", 0, 0, 0))]")
sys.stdout.flush()
code = subprocess.run(["bash", "-c", remote]).returncode
print("Good bye")
sys.exit(code)
"""


def test_what_deepspeed_takes_is_taken(tmp_path):
    file = tmp_path / "hostfile"
    file.write_text(
        "# a cluster\n\nnode-1 slots=8 # rack 3\nnode-2  slots=4 max_slots=8\nfd00::17 slots=2\t#\n"
    )
    assert read_hostfile(file) == {"node-1": 8, "node-2": 4, "fd00::17": 2}


@pytest.mark.parametrize("line", ["node-1", "node-1 slots=0", "node-1 slots=8 gpus", "node-1 slots=eight"])
def test_what_is_no_entry_is_refused(tmp_path, line):
    (tmp_path / "hostfile").write_text(line)
    with pytest.raises(UserError, match="line 1"):
        read_hostfile(tmp_path / "hostfile")


def test_hosts_are_heard_through_their_login_shells(tmp_path, monkeypatch):
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    hosts = {"far": 1, "silent": 1}
    far, silent = ask_hosts(hosts, 100)
    assert far.problems == () and far.facts["addresses"] == ["fd00::17"]
    assert silent.problems == ("no answer; it printed: nothing",)
    assert json.dumps(far.facts)
