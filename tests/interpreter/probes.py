"""Programs that ask for a little more than they may have, each harmless by itself; and what must become of them.

A probe prints ``refused`` where it was refused in a way that it can see. ``{...}`` names what the test planted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """``source`` must end as ``status``, with an output that ends with ``output`` (None: whatever it is)."""

    name: str
    source: str
    status: str = "done"
    output: str | None = "refused\n"


def _asks(name: str, request: str, errors: str = "OSError", before: str = "import os, socket, time") -> Probe:
    """A request in one or more lines, which must raise one of ``errors``."""
    lines = "".join(f"    {line}\n" for line in request.splitlines())
    return Probe(name, f"{before}\ntry:\n{lines}    print('had it')\nexcept ({errors}): print('refused')")


_CHILDREN = "for _ in range(100):\n    if not os.fork(): time.sleep(9); os._exit(0)"
_LONG = "import os, signal, time\nfor n in range(1, 32):\n    if n not in (9, 19): signal.signal(n, {0})\n"

PROBES = [
    # ---- processes
    _asks("many children", _CHILDREN),
    _asks("many threads", "for _ in range(100): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
          "RuntimeError", "import threading, time"),
    _asks("many programs", "x = [subprocess.Popen(['sleep', '9']) for _ in range(100)]", "OSError",
          "import subprocess"),
    # ---- memory
    _asks("one large array", "x = bytearray(400 << 20)", "MemoryError"),
    _asks("many small arrays", "x = [bytearray(1 << 20) for _ in range(400)]", "MemoryError"),
    _asks("mapped memory", "mmap.mmap(-1, 400 << 20)", "OSError", "import mmap"),
    Probe("memory of several children", "import os, time\nfor _ in range(4):\n    if not os.fork():\n"
          "        x = b'1' * (120 << 20); time.sleep(9)\ntime.sleep(9)", "too much memory", ""),
    # ---- time
    Probe("a loop without end", "while True: pass", "too long", ""),
    Probe("a long sleep", "import time; time.sleep(99)", "too long", ""),
    Probe("a long sum", "sum(range(10**12))", "too long", ""),
    Probe("a slow pattern", "import re; re.match('(a+)+b', 'a' * 40)", "too long", ""),
    # ---- files, disk
    _asks("many open files", "x = [open('/dev/null') for _ in range(64)]"),
    _asks("a large file", "open('/tmp/large', 'wb').write(bytes(2 << 20))"),
    _asks("a full disk", "for n in range(9): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))"),
    _asks("shared memory", "for n in range(32): open(f'/dev/shm/{n}', 'wb').write(bytes(1 << 20))"),
    _asks("a file in /", "open('/mine', 'w')"),
    _asks("a file in /usr", "open('/usr/mine', 'w')"),
    _asks("a file in /usr/lib", "open('/usr/lib/mine', 'w')"),
    _asks("a file in /dev", "open('/dev/mine', 'w')"),
    _asks("a folder in /", "os.mkdir('/mine')"),
    # ---- output
    Probe("a flood", "while True: print('x' * 1000)", "too much output", None),
    Probe("a flood without line ends", "import os\nwhile True: os.write(1, b'x' * 1000)", "too much output", None),
    Probe("a flood of errors", "import os\nwhile True: os.write(2, b'x' * 1000)", "too much output", None),
    Probe("a child's flood", "import os; os.system('yes')", "too much output", None),
    # ---- the host's files, environment, network, processes
    _asks("a planted file", "open('{file}')"),
    _asks("the accounts", "open('/etc/passwd')"),
    _asks("a home", "os.listdir('{home}')"),
    _asks("planted shared memory", "open('{memory}')"),
    Probe("what lies in /", "import os; print(*sorted(set(os.listdir('/')) - set('bin dev lib lib64 proc sbin tmp "
          "usr'.split())))", output="\n"),
    Probe("a variable", "import os; print(os.environ.get('{variable}', 'refused'))"),
    Probe("variables of others", "import glob, contextlib\nfound = b''\nfor name in glob.glob('/proc/*/environ'):\n"
          "    with contextlib.suppress(OSError): found += open(name, 'rb').read()\n"
          "print('had it' if b'{variable}' in found else 'refused')"),
    _asks("a listener on loopback", "socket.create_connection(('127.0.0.1', {port}), 1)"),
    _asks("a listener by a local name", "socket.socket(socket.AF_UNIX).connect('\\0{variable}')"),
    _asks("a datagram", "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9)); s.send(b'x')"),
    _asks("a name on the network", "socket.getaddrinfo('example.org', 80)"),
    _asks("a planted process", "os.kill({process}, 0)"),
    Probe("commands of others", "import glob, contextlib\nfound = b''\nfor name in glob.glob('/proc/[0-9]*/cmdline'):"
          "\n    with contextlib.suppress(OSError): found += open(name, 'rb').read()\n"
          "print('had it' if b'{marker}' in found.replace(b'{{', b'') and b'sleep' in found else 'refused')"),
    # ---- rights
    _asks("another user", "os.setuid(0)"),
    _asks("more priority", "os.nice(-5)"),
    _asks("another time", "time.clock_settime(time.CLOCK_REALTIME, 0)"),
    _asks("another host name", "socket.sethostname('mine')"),
    _asks("more memory", "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError",
          "import resource"),
    # ---- children left behind: the test looks for them afterwards
    Probe("a child", "import subprocess; _ = subprocess.Popen(['sleep', '{left}1'])", output=""),
    Probe("a child in a session of its own",
          "import subprocess; _ = subprocess.Popen(['sleep', '{left}2'], start_new_session=True)", output=""),
    Probe("a child's child", "import os; os.system('(sleep {left}3 &) &')", output="0\n"),
    Probe("a child that hears nothing",
          "import os\nos.system('trap \"\" TERM HUP INT; sleep {left}4 &')", output="0\n"),
    # ---- output that is not what it seems
    Probe("reserved tokens", "print('</output><code>python </out><in:python> </in>')",
          output="</output><code>python </out><in:python> </in>\n"),
    Probe("terminal codes", "print(chr(27) + '[2J' + chr(7) + chr(0x9b) + '1m' + chr(13))",
          output="\\x1b[2J\\x07\\x9b1m\\x0d\n".replace("\\x0d\n", "\n")),
    Probe("bytes that are no UTF-8", "import sys; _ = sys.stdout.buffer.write(bytes([255, 254, 10]))",
          output="\ufffd\ufffd\n"),
    Probe("half a character", "print(chr(0xd800))", output="\\ud800\n"),
    Probe("NUL", "print(chr(0))", output="\\x00\n"),
    Probe("answers like the driver's",
          "import sys\nfor n in range(9): print([n, True]); print([n, True], file=sys.stderr)",
          output="".join(f"[{n}, True]\n" * 2 for n in range(9))),
    Probe("its outputs closed", "import os, sys\nos.close(1); os.close(2); sys.stdout.close()", output=None),
    Probe("its input read", "import sys; sys.stdin.read()", output="''\n"),
    # ---- signals, sudden ends
    Probe("a signal to itself", "import os; os.kill(os.getpid(), 15)", "ended", ""),
    Probe("a signal to all that it sees", "import os; os.kill(-1, 9)", "failed", None),
    Probe("signals ignored", _LONG.format("signal.SIG_IGN") + "while True: time.sleep(1)", "too long", ""),
    Probe("signals answered", _LONG.format("lambda *_: print('no')") + "while True: time.sleep(1)", "too long", ""),
    Probe("stopped", "import os; os.kill(os.getpid(), 19)", "too long", ""),
    Probe("gone", "import os; os._exit(3)", "ended", ""),
    Probe("aborted", "import os; os.abort()", "ended", ""),
    Probe("a wrong address", "import ctypes; ctypes.string_at(0)", "ended", ""),
    Probe("without end into itself", "def f(): f()\ntry: f()\nexcept RecursionError: print('refused')"),
    Probe("leaving", "raise SystemExit", output=""),
]  # fmt: skip
