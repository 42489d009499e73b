"""A SLURM of four nodes on this machine: its own munged, slurmctld and slurmd, in a folder, ended by pid."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

NODES = ("n1", "n2", "n3", "n4")
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")

CONFIGURATION = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
KillWait=120
MinJobAge=300
FirstJobId={first_job}
InactiveLimit=0
Waittime=0
SlurmctldTimeout=30
SlurmdTimeout=30
TmpFS=/tmp
NodeName=n[1-4] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=16 RealMemory=8000
PartitionName=debug Nodes=n[1-4] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def absent():
    """Why it cannot run here, or nothing."""
    missing = [command for command in COMMANDS if find(command) is None]
    return (
        f"{', '.join(missing)} absent: apt-get install slurm-wlm munge, or make test-system"
        if missing
        else ""
    )


def find(command):
    return shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_ports(count):
    """The first of ``count`` ports in a row that nobody has; two clusters may run at once."""
    first = 10_000 + os.getpid() % 4_000 * count
    while not all(_is_free(port) for port in range(first, first + count)):
        first += count
    return first


def _is_free(port):
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) != 0


class Slurm:
    def __init__(self):
        # munged wants every folder above its socket open to all, which a test's own folder is not.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        folder.chmod(0o755)
        self.daemons, self.nodes = [], {}
        port = _free_ports(1 + len(NODES))
        # Ranks meet at a port that the job's number makes, and both workers' clusters are on this host.
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        for part in ("munge", "state", *(f"spool/{node}" for node in NODES)):
            (folder / part).mkdir(parents=True)
        (folder / "munge").chmod(0o755)
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname(),
                user=pwd.getpwuid(os.getuid()).pw_name,
                folder=folder,
                port=port,
                first=port + 1,
                last=port + len(NODES),
                first_job=1 + 300 * worker,
            )
        )
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self):
        munge = self.folder / "munge"
        self._start("munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket",
                    f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log")  # fmt: skip
        self._until(lambda: (munge / "socket").exists(), "munged")
        configuration = self.folder / "slurm.conf"
        self._start("slurmctld", "-D", "-i", "-f", configuration)
        for node in NODES:
            self.start_node(node)
        idle = f"{len(NODES)} idle"
        self._until(lambda: self.run("sinfo", "-h", "-o", "%D %t", check=False) == idle, "all nodes")
        return self

    def __exit__(self, *_):
        with suppress(subprocess.SubprocessError):
            self.run("scancel", "--user", str(os.getuid()), check=False)
            time.sleep(1)
        for daemon in reversed(self.daemons):
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command, *words, check=True, cwd=None, timeout=150, **more):
        """Output of a SLURM command, both streams."""
        done = subprocess.run(
            [find(command), *map(str, words)],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            cwd=cwd,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout.strip()

    def call(self, *words, cwd, code=0, timeout=150):
        """Output of a program that calls SLURM's commands itself; it must end with ``code``."""
        environment = {**self.environment, "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{Path(find('sbatch')).parent}:{environment['PATH']}"
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def submit(self, *words, **more):
        """The number of the job that sbatch made."""
        return re.search(r"\d+", self.run("sbatch", "--parsable", *words, **more))[0]

    def wait(self, job, seconds=300):
        """Waits until the job has left the queue; its state and exit code, as scontrol tells them."""
        end = time.monotonic() + seconds
        while self.run("squeue", "-h", "-j", job, check=False) and time.monotonic() < end:
            time.sleep(0.3)
        shown = self.facts(job)
        return shown["JobState"], shown["ExitCode"]

    def facts(self, job):
        shown = self.run("scontrol", "-o", "show", "job", job).splitlines()[0]
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def start_node(self, node):
        self._start("slurmd", "-D", "-N", node, "-f", self.folder / "slurm.conf")
        self.nodes[node] = self.daemons[-1]

    def lose_node(self, node):
        """Its daemon and all that runs on it end at once; the controller hears that it is down."""
        gone = self.nodes.pop(node)
        family = [psutil.Process(gone.pid), *self._steps(node)]
        below = [one for step in family for one in step.children(recursive=True)]
        for process in [*family, *below]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def _steps(self, node):
        """The processes that watch over a node's tasks: they outlive its daemon."""
        log = str(self.folder / f"slurmd.{node}.log")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "slurmstepd" and log in [file.path for file in process.open_files()]:
                    yield process

    def _start(self, command, *words):
        log = (self.folder / f"{command}.out").open("a")
        self.daemons.append(
            subprocess.Popen(
                [find(command), *map(str, words)],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )

    def _until(self, ready, what, seconds=120):
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, f"{what} did not come up; see {self.folder}/*.log, *.out"
            time.sleep(0.1)
