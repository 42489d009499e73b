"""Two hosts on this machine: network namespaces on a bridge, each with its own processes, names and sshd."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from .slurm import find

COMMANDS = ("ip", "nsenter", "unshare", "sshd", "ssh-keygen", "pdsh", "tc")
NETWORK = "10.77.0"

INIT = """
mount --make-rprivate /
hostname node-{number}
mount --bind {folder}/hosts-{number} /etc/hosts
mkdir -p /root/.ssh
mount -t tmpfs none /root/.ssh
cp {folder}/key /root/.ssh/id_ed25519; cp {folder}/key.pub /root/.ssh/authorized_keys
printf 'StrictHostKeyChecking no\\nUserKnownHostsFile /dev/null\\nLogLevel ERROR\\n' > /root/.ssh/config
chmod -R go= /root/.ssh
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
mkdir -p /run/sshd
touch {folder}/up-{number}
exec {sshd} -D -e -h {folder}/host-key -o UsePAM=no -o PidFile=none -o PermitRootLogin=yes -o StrictModes=no
"""


def absent():
    """Why it cannot run here, or nothing."""
    if missing := [command for command in COMMANDS if find(command) is None]:
        return f"{', '.join(missing)} absent: make test-system installs them from Debian's packages"
    if os.geteuid():
        return "network namespaces need root"
    done = subprocess.run([find("unshare"), "--net", "true"], capture_output=True, text=True)
    return f"no network namespaces here: {done.stderr.strip()}" if done.returncode else ""


class Hosts:
    """``names[i]`` is a host; ``run`` does a command on the first one."""

    def __init__(self, count=2):
        self.names = [f"node-{number + 1}" for number in range(count)]
        self.tag = f"m{os.getpid() % 100_000}"
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self.folder.chmod(0o755)
        self.inits = []

    def __enter__(self):
        for key in ("key", "host-key"):
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        switch = f"{self.tag}-sw"
        _do("ip", "netns", "add", switch)
        _do("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _do("ip", "-n", switch, "link", "set", "br0", "up")
        names = "".join(f"{NETWORK}.{i + 1} {name}\n" for i, name in enumerate(self.names))
        for number in range(1, len(self.names) + 1):
            space, cable = f"{self.tag}-{number}", f"{self.tag}v{number}"
            _do("ip", "netns", "add", space)
            _do("ip", "-n", space, "link", "set", "lo", "up")
            _do(
                "ip",
                "link",
                "add",
                "eth0",
                "netns",
                space,
                "type",
                "veth",
                "peer",
                "name",
                cable,
                "netns",
                switch,
            )
            _do("ip", "-n", switch, "link", "set", cable, "master", "br0", "up")
            _do("ip", "-n", space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            _do("ip", "-n", space, "link", "set", "eth0", "up")
            (self.folder / f"hosts-{number}").write_text(f"127.0.0.1 localhost\n{names}{NETWORK}.99 gone\n")
            self.inits.append(self._boot(number))
        self._wait_until_up()
        return self

    def _boot(self, number):
        """The first process of a host, counted from 1."""
        script, name = self.folder / f"init-{number}.sh", self.names[number - 1]
        script.write_text(INIT.format(number=number, folder=self.folder, sshd=find("sshd")))
        return subprocess.Popen(
            [find("nsenter"), f"--net=/run/netns/{self.tag}-{number}", find("unshare"), "--uts", "--pid", "--fork",
             "--kill-child", "--mount", "--mount-proc", "bash", "-e", str(script)],
            stdout=(self.folder / f"{name}.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _wait_until_up(self):
        end = time.monotonic() + 120
        while not all((self.folder / f"up-{number + 1}").exists() for number in range(len(self.names))):
            assert time.monotonic() < end, [log.read_text() for log in self.folder.glob("*.log")]
            time.sleep(0.1)
        time.sleep(0.3)

    def lose(self, host):
        """All its processes end at once, and what it had mounted is gone."""
        os.killpg(self.inits[host].pid, signal.SIGKILL)  # the PID namespace dies with its first process
        self.inits[host].wait()
        (self.folder / f"up-{host + 1}").unlink()

    def replace(self, host):
        """A fresh host of the same name in place of one that was lost."""
        self.inits[host] = self._boot(host + 1)
        self._wait_until_up()

    def __exit__(self, *_):
        for init in self.inits:
            with suppress(ProcessLookupError):
                os.killpg(init.pid, signal.SIGKILL)  # the PID namespace dies with its first process
            init.wait()
        for space in [f"{self.tag}-sw", *(f"{self.tag}-{i + 1}" for i in range(len(self.names)))]:
            _do("ip", "netns", "del", space)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words, host=0):
        """``words`` as a command line that runs on a host."""
        inner = self._first_process(host)
        return [
            find("nsenter"),
            "-t",
            str(inner),
            "-n",
            "-u",
            "-m",
            "-p",
            f"--wd={Path.cwd()}",
            *map(str, words),
        ]

    def seen(self, host, path):
        """``path`` as ``host`` sees it, with what is mounted there."""
        return Path(f"/proc/{self._first_process(host)}/root{path}")

    def slow_down(self, host, rate="20mbit"):
        """What ``host`` sends goes at ``rate`` from now on."""
        space = f"{self.tag}-{host + 1}"
        qdisc = ["tc", "-n", space, "qdisc", "add", "dev", "eth0", "root", "tbf"]
        _do(*qdisc, "rate", rate, "burst", "32kbit", "latency", "400ms")

    def full_speed(self, host):
        _do("tc", "-n", f"{self.tag}-{host + 1}", "qdisc", "del", "dev", "eth0", "root")

    def link(self, host, state):
        """Pulls a host's cable (``down``), or puts it back (``up``)."""
        _do("ip", "-n", f"{self.tag}-sw", "link", "set", f"{self.tag}v{host + 1}", state)

    def _first_process(self, host):
        """The process that is number 1 in the host's own PID namespace."""
        outer = self.inits[host].pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0]) if children else outer


def _do(command, *words):
    done = subprocess.run([find(command), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, f"{command} {words}: {done.stderr}"
