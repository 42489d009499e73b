"""Runs programs that nobody trusts.

In: a ``Program``, ``Limits``. Out: a ``Process`` that answers requests until it has answered, ended, or
gone beyond a limit. ``open_sandbox`` tries the machine first, and refuses where it cannot enclose.
"""

from megarc.interpreter.sandbox.bubblewrap import Sandbox, open_sandbox
from megarc.interpreter.sandbox.limits import Limits
from megarc.interpreter.sandbox.process import Heard, Process, StartError
from megarc.interpreter.sandbox.program import Program

__all__ = ["Heard", "Limits", "Process", "Program", "Sandbox", "StartError", "open_sandbox"]
