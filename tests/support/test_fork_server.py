"""A program that is forked ends as one that Python starts: exit code, output, and what it does on its way out."""

import sys
from pathlib import Path

import pytest

from support.processes import run

ENDINGS = {
    "end of file": "print('said')",
    "a number": "import sys; print('said'); sys.exit(3)",
    "a negative number": "import sys; sys.exit(-1)",
    "nothing": "import sys; sys.exit()",
    "words": "import sys; sys.exit('no such file')",
    "an error": "def inner(): raise ValueError('no')\ninner()",
    "an interrupt": (
        # A shell starts what runs in the background with this signal ignored.
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)"
    ),
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "a thread": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()\n"
        "print('early')"
    ),
    "a daemon": "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "exit functions": "import atexit; atexit.register(print, 'first'); atexit.register(print, 'last')",
    "C's output": "import ctypes; ctypes.CDLL(None).printf(b'said by C')",
    "a closed output": "import sys; sys.stdout.close()",
}


@pytest.mark.parametrize("program", ENDINGS.values(), ids=ENDINGS)
def test_it_ends_as_one_that_python_starts(program, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(program)
    forked, started = (
        run([sys.executable, script], cold=cold, capture_output=True, text=True, timeout=60)
        for cold in (False, True)
    )
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]


def test_an_output_that_nobody_reads_is_an_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.stdout = open(1, 'w', closefd=False); print('said')")
    with Path("/dev/full").open("w") as full:
        codes = [run([sys.executable, script], cold=cold, stdout=full).returncode for cold in (False, True)]
    assert codes == [120, 120]
