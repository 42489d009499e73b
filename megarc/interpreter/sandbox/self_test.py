"""One harmless program that looks whether the walls stand, before anything else runs within them."""

from __future__ import annotations

from megarc.interpreter.sandbox.limits import Limits
from megarc.interpreter.sandbox.process import Process, StartError
from megarc.interpreter.sandbox.program import Program

# In shell, so that it needs no interpreter that may not be installed: what it sees, a fact a line.
_LOOK = r"""
echo "interfaces:" $(sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev)
echo "rights:" $(sed -n 's/^CapEff:[[:space:]]*0*//p' /proc/self/status)
echo "processes:" $(ulimit -u 2>/dev/null || sed -n 's/^Max processes *\([0-9]*\).*/\1/p' /proc/self/limits)
[ -e /etc ] || [ -e /home ] || [ -e /root ] && echo "files: the host's" || echo "files: own"
(: > /written) 2>/dev/null && echo "root: writable" || echo "root: closed"
(: > /tmp/written) 2>/dev/null && echo "tmp: writable" || echo "tmp: closed"
"""
TRIAL = Program(("/bin/sh", "-c", _LOOK), merged=True)


def verdict(process: Process, limits: Limits) -> str | None:
    """What is wrong with the walls that ``process``, a running ``TRIAL``, stands in; None: nothing."""
    try:
        heard = process.exchange(b"", lambda _: False, limits.start_seconds)
    except StartError as error:
        return str(error)
    finally:
        process.stop()
    said = heard.output.decode(errors="replace")
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    found = {name: value.strip() for name, value in facts.items()}
    wanted = {"interfaces": "lo", "rights": "", "files": "own", "root": "closed", "tmp": "writable"}
    wanted["processes"] = str(limits.processes)
    for name, value in wanted.items():
        if name not in found:
            return f"bubblewrap cannot enclose a program here ({' '.join(said.split()) or 'it said nothing'})"
        if found[name] != value:
            return f"inside, {name} should be '{value}' and is '{found[name]}'"
    return None
