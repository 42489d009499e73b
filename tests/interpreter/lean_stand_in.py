"""A stand-in for Lean's REPL, which nothing here installs: the JSON of its protocol, and next to no Lean.

It knows ``def NAME := NUMBER``, ``#eval NAME``, ``example : A = B := rfl`` and ``sorry``, and answers in the shapes
that the REPL's own documentation shows. What it says of Lean is worth nothing; that megarc speaks the protocol is
what it tests.
"""

from __future__ import annotations

import json
import re
import sys
import time

Numbers = dict[str, int]


def answer(request: dict[str, object], environments: list[Numbers]) -> dict[str, object]:
    number = request.get("env")
    if number is not None and not (isinstance(number, int) and number < len(environments)):
        return {"message": "Unknown environment."}
    known = dict(environments[number]) if isinstance(number, int) else {}
    messages, sorries = [], []
    for line, text in enumerate(str(request["cmd"]).splitlines(), 1):
        severity, said = judged(text, known)
        if "sorry" in text:
            sorries.append({"proofState": 0, "pos": {"line": line, "column": 0}, "goal": "⊢ " + text})
        if said:
            messages.append({"severity": severity, "pos": {"line": line, "column": 0}, "data": said})
    environments.append(known)
    found = {"sorries": sorries, "messages": messages}
    return {**{name: value for name, value in found.items() if value}, "env": len(environments) - 1}


def judged(text: str, known: Numbers) -> tuple[str, str]:
    if found := re.fullmatch(r"def (\w+) := (\d+)", text):
        known[found[1]] = int(found[2])
        return "info", ""
    if found := re.fullmatch(r"#eval (\w+)", text):
        return (
            ("info", str(known[found[1]]))
            if found[1] in known
            else ("error", f"unknown identifier '{found[1]}'")
        )
    if found := re.fullmatch(r"example : (\w+) = (\w+) := rfl", text):
        left, right = (known.get(side, side) for side in found.groups())
        return ("info", "") if str(left) == str(right) else ("error", "type mismatch")
    if "sorry" in text:
        return "warning", "declaration uses 'sorry'"
    if text == "#sleep":
        time.sleep(60)
    if text == "#exit":
        raise SystemExit(1)
    return ("error", "unexpected token") if text.strip() else ("info", "")


def main() -> None:
    environments: list[Numbers] = []
    request = ""
    for line in sys.stdin:
        request += line
        if line == "\n" and request.strip():
            print(
                json.dumps(answer(json.loads(request), environments), indent=1, ensure_ascii=False) + "\n",
                flush=True,
            )
            request = ""


main()
