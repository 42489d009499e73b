"""Runs inside the sandbox: pieces as at Python's prompt. A file of its own, handed over as text; imports no megarc.

Requests come on standard input, answers go to standard error; both are moved out of the way first, so that a
piece reads an empty input, and whatever it or its children write goes to standard output.
"""

# mypy: ignore-errors
import __future__

import ast
import contextlib
import json
import os
import sys
import traceback


def main():
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(2)
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(1, 2)
    restored(output)
    sys.argv = [""]
    here, space = os.getpid(), {"__name__": "__main__", "__doc__": None, "__builtins__": __builtins__}
    flags = 0
    for line in requests:
        request = json.loads(line)
        failed, flags = run(request["source"], space, flags)
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                stream.flush()
        if os.getpid() != here:  # a child that the piece made and that came back here
            os._exit(0)
        restored(output)
        os.write(answers, json.dumps([request["number"], failed]).encode() + b"\n")


def restored(output):
    """Standard output and error as they were, whatever a piece closed; what it put in their place stays."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, f"__{name}__")
        if stream is None or stream.closed:
            stream = os.fdopen(number, "w", closefd=False)
            setattr(sys, f"__{name}__", stream)
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
        if getattr(getattr(sys, name, None), "closed", True):
            setattr(sys, name, stream)


def run(source, space, flags):
    """Each statement in turn, as typed at the prompt; the value of an expression is shown."""
    try:
        tree = compile(source, "<stdin>", "exec", flags | ast.PyCF_ONLY_AST, True)
        for statement in tree.body:
            code = compile(ast.Interactive([statement]), "<stdin>", "single", flags, True)
            for name in __future__.all_feature_names:
                flags |= code.co_flags & getattr(__future__, name).compiler_flag
            exec(code, space)  # noqa: S102  (inside of the sandbox: this is its work)
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        return leaving.code not in (None, 0), flags
    except BaseException as error:
        show(error)
        return True, flags
    return False, flags


def show(error):
    """The traceback as the prompt has it: without the frames of this file."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.stdout.flush()
        text = "".join(traceback.format_exception(type(error), error, trace))
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except BaseException as second:
        os.write(2, (type(second).__name__ + "\n").encode())


main()
