"""What asks for more than it may have gets nothing, wedges nothing, and the next piece runs."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from interpreter.probes import PROBES, Probe

from megarc.interpreter.languages import Enduring, Language, Outcome
from megarc.interpreter.sandbox import Sandbox


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Things of the host that a program inside must not reach."""
    word = f"planted{secrets.token_hex(6)}"
    (tmp_path / word).write_text("secret")
    tmp_path.chmod(0o755)
    memory = Path("/dev/shm") / word
    memory.write_text("secret")
    monkeypatch.setenv(word, "secret")
    number = str(10**6 + secrets.randbelow(10**6))
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", word])
    heard: list[object] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: (sleeper.kill(), sleeper.wait(), memory.unlink()))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(f"\0{word}")
        local.listen()
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=lambda: _listen(server, heard), daemon=True).start()
        yield {
            "file": str(tmp_path / word),
            "home": str(Path.home()),
            "memory": str(memory),
            "variable": word,
            "port": str(server.getsockname()[1]),
            "process": str(sleeper.pid),
            "marker": word,
            "left": number,
        }
        assert not heard, "something came through to the listener"


def _listen(server: socket.socket, heard: list[object]) -> None:
    with contextlib.suppress(OSError):
        heard.append(server.accept())


def test_no_probe_gets_what_it_asks_for_and_the_next_piece_runs(
    sandbox: Sandbox, hasty: Sandbox, language: Callable[[str], Language], planted: dict[str, str]
) -> None:
    """All through one pool of two workers: an environment a probe, then another piece in the same environment."""
    assert len(PROBES) >= 40 and len({probe.name for probe in PROBES}) == len(PROBES)
    python = language("python")
    files_before = len(list(Path("/proc/self/fd").iterdir()))

    def run(probe: Probe) -> tuple[Outcome, Outcome]:
        source = probe.source
        for name, value in planted.items():
            source = source.replace(f"{{{name}}}", value)
        with Enduring(python, hasty if probe.status == "too long" else sandbox) as environment:
            return environment.run(source), environment.run("'next', 1 + 1")

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, PROBES))
    wrong = []
    for probe, (outcome, following) in zip(PROBES, results, strict=True):
        ends = outcome.status == probe.status and outcome.output.endswith(probe.output or "")
        if not ends or "had it" in outcome.output or following != Outcome("('next', 2)\n", "done"):
            wrong.append((probe.name, replace(outcome, output=outcome.output[-300:]), following))
        assert len(outcome.output) <= 4 * sandbox.limits.output_bytes
    assert not wrong
    left = [
        one.info for one in psutil.process_iter(["cmdline"]) if planted["left"] in str(one.info["cmdline"])
    ]
    assert not left, "a child outlived its sandbox"
    assert len(list(Path("/proc/self/fd").iterdir())) <= files_before + 2, "pipes stayed open"
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


def test_every_planted_thing_is_there_for_a_program_outside(planted: dict[str, str]) -> None:
    """Else the probes would pass for nothing."""
    source = (
        f"import os, socket; open('{planted['file']}'); open('{planted['memory']}'); "
        f"os.kill({planted['process']}, 0); os.environ['{planted['variable']}']; "
        f"socket.socket(socket.AF_UNIX).connect('\\0{planted['variable']}'); os.listdir('{planted['home']}')"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
