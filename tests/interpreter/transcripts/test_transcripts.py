"""Code in documents, run for real: what is kept, what is dropped, what is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from megarc.corpus import Segment, parse_marked
from megarc.errors import UserError
from megarc.interpreter.languages import Language, Session
from megarc.interpreter.sandbox import Sandbox
from megarc.interpreter.transcripts import (
    Request,
    Settings,
    find_code,
    interpret,
    normalised,
    settled,
    shortened,
)

ROOT = Path(__file__).parents[3]
Find = Callable[[str], Language]

SESSION = '''Text before::

    >>> x = 6
    >>> x * 7
    41 is what the document says
    >>> def f():
    ...     return x
    ...
    >>> f()
    6
    >>> object()
    <object object at 0x7f0000000000>
    >>> {'a', 'b', 'c', 'd', 'e'}
    {'a', 'b', 'c', 'd', 'e'}
    >>> import time; time.time_ns()
    1
    >>> 1 / 0
    Traceback (most recent call last):
    ZeroDivisionError: division by zero
    """

Text behind, with </out> in it.
'''


def pieces(
    document: str, name: str = "a.md", languages: tuple[str, ...] = ("python", "coq", "smt")
) -> list[str]:
    return [one.text for one in find_code(document, name, languages) if one.kind == "code"]


def test_code_is_found_wherever_documents_hold_it() -> None:
    assert pieces(SESSION)[:3] == ["x = 6\n", "x * 7\n", "def f():\n    return x\n"]
    fenced = "a\n```python\nx = 1\n\nprint(x)\n```\nb\n"
    fenced += "~~~{.py}\n>>> 1\n1\n>>> 2\n~~~\n```c\nint x;\n```\n```\n>>> 3\n```\n"
    assert pieces(fenced) == ["x = 1\n\nprint(x)\n", "1\n", "2\n", "3\n"]
    directive = "See:\n\n.. code-block:: python\n   :linenos:\n\n   x = 1\n\n   y = 2\n\nText\n"
    assert pieces(directive) == ["x = 1\n\ny = 2\n"]
    assert pieces("In [1]: x = 1\n   ...: y = 2\nIn [2]: x\nOut[2]: 1\n\nend") == ["x = 1\ny = 2\n", "x\n"]
    assert pieces("Coq < Check 3.\n3 : nat\n") == ["Check 3.\n"]
    assert pieces("Check 3. (* a. *) Check\n 4.", "a.v") == ["Check 3.\n", "Check\n 4.\n"]
    assert pieces("(assert a) ; b\n(check-sat)", "a.smt2") == ["(assert a)\n", "; b\n(check-sat)\n"]
    assert pieces("def f := 2\n  + 3\n#eval f\n", "a.lean", ("lean",)) == ["def f := 2\n  + 3\n", "#eval f\n"]
    cells = [{"cell_type": "markdown", "source": ["# A\n"]}, {"cell_type": "code", "source": ["x = 1\n", "x"]},
             {"cell_type": "code", "source": "%timeit x"}]  # fmt: skip
    assert pieces(json.dumps({"cells": cells}), "a.ipynb") == ["x = 1\nx\n"]
    fenced = 's = """\n```\n"""\n'
    assert pieces(json.dumps({"cells": [{"cell_type": "code", "source": fenced}]}), "a.ipynb") == [fenced]
    assert pieces("not JSON", "a.ipynb") == []
    assert pieces("```python\nnever closed\n") == []
    assert pieces("```coq\nCheck 3.\n```\n", languages=("python",)) == []


def test_text_outside_of_code_is_kept_to_the_character() -> None:
    text = "a\r\nb\x0c\n  > > c\n```c\nint x;\n```\n.. code-block:: c\n\n  int y;\nend without line end"
    assert find_code(text, "a.rst", ("python",)) == [Segment("text", text)]


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("fences.md", "```python\n" * 200_000),
        ("line.md", "```" + "a" * 1_000_000 + "`\n"),
        ("spaces.rst", ".. code::" + " " * 1_000_000 + "-\n"),
        ("verilog.v", "module " * 400_000),
    ],
    ids=lambda value: value[:10],
)
def test_long_rubbish_is_text(name: str, document: str) -> None:
    """A search that is quadratic in any of these would go on for hours."""
    assert find_code(document, name, ("python", "coq")) == [Segment("text", document)]


def test_a_fence_is_closed_by_one_of_its_kind_and_length() -> None:
    document = "````python\n~~~py\n1\n~~~\n```python\n2\n```\n~~~~py\n~~~\n3\n~~~~~\n"
    assert pieces(document) == ["1\n", "2\n", "~~~\n3\n"]
    blank = "```python\nx = 1" + "\n" * 500_000 + "y = 2\n```\n"
    assert [len(piece) for piece in pieces(blank)] == [500_011]


def test_normalising() -> None:
    assert settled("<a at 0x7f00000001> <b at 0x7f00000002> <a at 0x7f00000001> 0x7f00000001") == (
        "<a at 0x1> <b at 0x2> <a at 0x1> 0x7f00000001"
    )
    assert normalised("<a at 0x7f00000001>", "<a at 0x7e00000001>") == "<a at 0x1>"
    assert normalised("id='139000000000001'", "id='140000000000001'") == "id=id1"
    assert normalised("/tmp/tmpab_1/x 12:00:01", "/tmp/tmpcd_2/x 12:00:02") == "/tmp/1/x time1"
    assert normalised("0xdeadbeef", "0xdeadbeef") == "0xdeadbeef"
    assert normalised("2026-01-01", "2026-01-01") == "2026-01-01"
    assert normalised("{1, 2}", "{2, 1}") is None
    assert normalised("a a", "a b") is None
    assert shortened("abcdef", 4) == "abcd\n[2 characters more]\n" and shortened("abcd", 4) == "abcd"


def write(folder: Path) -> list[str]:
    """A corpus in which everything happens."""
    (folder / "session.rst").write_text(SESSION)
    (folder / "end.md").write_text(
        "```python\nx = 1\n```\n```python\nwhile True: pass\n```\n```python\nimport os; os._exit(1)\n```\n"
        "```python\nprint('ÿ' * 5000, x)\n```\n```coq\nCheck 3.\n```\n```smt2\n(echo \"a\")\n```\n"
    )
    (folder / "bytes.md").write_text("```python\nimport sys; _ = sys.stdout.buffer.write(b'\\xff\\n')\n```\n")
    (folder / "plain.txt").write_text("no code here")
    lines = [json.dumps({"text": ">>> 1 + 1\n2\n"}), "{broken", json.dumps({"text": "nothing"})]
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    return [str(folder)]


def test_a_corpus_becomes_transcripts(
    hasty: Sandbox,
    language: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    languages = {name: language(name) for name in ("python", "smt")}
    request = Request(write(corpus), tmp_path / "out.jsonl", languages, hasty, workers=2)
    report = interpret(request)
    assert "pieces 15, " in (told := capsys.readouterr().err) and told.endswith(" pieces/s\n")
    assert (report.documents, report.written, report.rejects) == (6, 4, 1)
    assert "lines.jsonl:27 malformed JSON" in report.rejected()
    assert dict(report.pieces) == {
        ("python", "kept"): 5 + 2 + 1 + 1,
        ("python", "kept, an error"): 1,
        ("python", "differs between two runs"): 2,
        ("python", "too long"): 1,
        ("python", "ended"): 1,
        ("smt", "kept"): 1,
    }
    lines = [json.loads(line) for line in request.output.read_text().splitlines()]
    assert [Path(line["source"]).name for line in lines] == [
        "bytes.md",
        "end.md",
        "lines.jsonl:0",
        "session.rst",
    ]
    shown = {Path(line["source"]).name: parse_marked(line["text"]) for line in lines}
    session = shown["session.rst"]
    assert [one.text for one in session if one.kind == "output"] == [
        "", "42\n", "", "6\n", "<object object at 0x1>\n",
        'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'
        "ZeroDivisionError: division by zero\n",
    ]  # fmt: skip
    assert session[0].text == "Text before::\n\n"
    assert session[-1].text.endswith('    """\n\nText behind, with </out> in it.\n')
    assert any("time_ns()" in one.text for one in session if one.kind == "text"), (
        "dropped pieces stay as text"
    )
    assert [one.text for one in shown["bytes.md"] if one.kind == "output"] == ["\ufffd\n"]
    last = [one.text for one in shown["end.md"] if one.kind == "output"][1]
    assert last.startswith("ÿÿ") and last.endswith("[3003 characters more]\n")

    # Again, with another number of workers: nothing runs, the same comes out.
    monkeypatch.setattr(Session, "__init__", lambda *_: pytest.fail("an interpreter was started"))
    again = Request(request.inputs, tmp_path / "again.jsonl", languages, hasty)
    request.cache.rename(again.cache)
    interpret(again)
    assert again.output.read_bytes() == request.output.read_bytes()
    assert again.report.read_bytes() == request.report.read_bytes()
    settings = Settings(characters=10, failures=False, quiet=False)
    other = Request(request.inputs, again.output, languages, hasty, settings, whole=True)
    report = interpret(other)
    assert report.written == 6
    assert report.pieces["python", "an error, dropped"] == 1
    assert report.pieces["python", "without output, dropped"] == 3


def test_a_corpus_without_code_is_an_error_and_leaves_nothing(
    sandbox: Sandbox, language: Find, tmp_path: Path
) -> None:
    (tmp_path / "plain.txt").write_text("no code")
    request = Request(
        [str(tmp_path / "plain.txt")], tmp_path / "out.jsonl", {"python": language("python")}, sandbox
    )
    with pytest.raises(UserError, match="there is no code in python"):
        interpret(request)
    (tmp_path / "plain.txt").write_bytes(b"\xff\0")
    with pytest.raises(UserError, match=r"1 bad .* the first: .*plain.txt: not text: a NUL at byte 1"):
        interpret(request)
    assert [path.name for path in tmp_path.iterdir()] == ["plain.txt"]
    with pytest.raises(UserError, match="0 workers"):
        interpret(Request([], tmp_path / "o", {}, sandbox, workers=0))


def test_a_killed_job_goes_on(sandbox: Sandbox, language: Find, tmp_path: Path) -> None:
    """By the command itself: killed in the middle, it leaves no output, and runs no document twice."""
    assert language("python")
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.md").write_text(f">>> import time; time.sleep(.2)\n>>> {number}\n{number}\n")
    output = tmp_path / "out.jsonl"
    command = [
        sys.executable,
        str(ROOT / "data_tools" / "interpret.py"),
        "--input",
        str(folder),
        "--output",
        str(output),
    ]
    job = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    cache = Path(f"{output}.cache")
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not output.exists()
    entries = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json")}
    assert 3 <= len(entries) < 12
    damaged = next(iter(entries))
    os.truncate(damaged, 5)
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "24 kept" in said.stdout
    lines = [json.loads(line)["text"] for line in output.read_text().splitlines()]
    assert [parse_marked(line)[-2].text for line in lines] == [f"{number}\n" for number in range(12)]
    unchanged = [path.stat().st_mtime_ns == when for path, when in entries.items() if path != damaged]
    assert all(unchanged)


def test_commands_say_what_is_wrong(tmp_path: Path) -> None:
    for arguments, words in (
        (["--languages", "perl"], "unknown language 'perl'"),
        (["--languages", "lean"], "--lean"),
        (["--python", str(tmp_path / "python")], "there is no"),
        (["--workers", "0"], "whole number"),
        (["--input", __file__, "--output", str(tmp_path)], "it is a folder"),
    ):
        command = [
            sys.executable,
            str(ROOT / "data_tools" / "interpret.py"),
            "--input",
            str(tmp_path),
            "--output",
            "o",
        ]
        said = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert said.returncode == 2 and words in said.stderr and "Traceback" not in said.stderr
