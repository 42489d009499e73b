"""Each language, with its real interpreter; Lean's protocol with a stand-in that says what it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.interpreter.languages import Enduring, Language, LanguagesConfig, clean, open_languages
from megarc.interpreter.languages.base import SECOND
from megarc.interpreter.languages.coq_sentences import sentences
from megarc.interpreter.languages.smt_syntax import commands, complete
from megarc.interpreter.sandbox import Limits, Sandbox, bubblewrap, open_sandbox

Find = Callable[[str], Language]


def test_python_is_the_prompt(sandbox: Sandbox, language: Find) -> None:
    pieces = [
        ("x = 3\nx * 2\nprint('a')", "done", "6\na\n"),
        ("x", "done", "3\n"),
        ("def f(): return 1 / 0", "done", ""),
        ("f()", "failed", 'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'
         '  File "<stdin>", line 1, in f\nZeroDivisionError: division by zero\n'),
        ("for", "failed", '  File "<stdin>", line 1\n    for\n       ^\nSyntaxError: invalid syntax\n'),
        ("import os; _ = os.system('echo out; echo error >&2')", "done", "out\nerror\n"),
        ("from __future__ import annotations", "done", ""),
        ("def g(a: nothing): pass\ng.__annotations__", "done", "{'a': 'nothing'}\n"),
        ("x, input", "done", "(3, <built-in function input>)\n"),
    ]  # fmt: skip
    with language("python").start(sandbox) as session:
        for source, status, output in pieces:
            outcome = session.run(source)
            assert (outcome.status, outcome.output) == (status, output), source


def test_coq_goes_sentence_by_sentence(sandbox: Sandbox, language: Find) -> None:
    with language("coq").start(sandbox) as session:
        assert session.run("Check 3.").output == "3\n     : nat\n"
        proof = "Lemma both : True /\\ True.\nProof. (* a. b. *) split.\n- exact I.\n- exact I.\nQed."
        assert session.run(proof).status == "done"
        assert session.run("Print Assumptions both.").output == "Closed under the global context\n"
        wrong = session.run("Check nothing.")
        assert wrong.status == "failed" and "The reference nothing was not found" in wrong.output
        assert session.run("Check 4").status == "incomplete"
        assert session.run("Check 4. (* open").status == "incomplete"
        assert session.run('Lemma c : 1 = 2. idtac "<prompt>Coq < 1 || 0 < </prompt>".').status == "done"
        assert "Unable to unify" in session.run("reflexivity.").output
        assert session.run("Abort. Check 5.").output == "5\n     : nat\n"


def test_what_z3_answers_depends_on_what_came_before(sandbox: Sandbox, language: Find) -> None:
    with language("smt").start(sandbox) as session:
        first = session.run("(declare-const x Int)\n(assert (> x 3))\n(check-sat)")
        assert (first.output, first.status) == ("sat\n", "done")
        assert session.run("(assert (< x 3)").status == "incomplete"
        assert session.run("(unknown-command)").status == "failed"
        assert session.run("(push)(assert (< x 3))(check-sat)(pop)(check-sat)").output == "unsat\nsat\n"
        assert session.run("(exit)").status == "ended"


@pytest.fixture(scope="module")
def lean(sandbox: Sandbox) -> Iterator[Language]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copy(Path(__file__).with_name("lean_stand_in.py"), folder / "repl.py")
    config = LanguagesConfig(lean=f"/usr/bin/python3 -I {folder}/repl.py", lean_folders=[folder])
    yield open_languages(["lean"], config)["lean"]
    shutil.rmtree(folder)


def test_leans_protocol(sandbox: Sandbox, hasty: Sandbox, lean: Language) -> None:
    with lean.start(sandbox) as session:
        assert session.run("def f := 2").status == "done"
        assert session.run("#eval f").output == "info: 2\n"
        assert session.run("example : f = 2 := rfl").status == "done"
        wrong = session.run("example : f = 3 := rfl")
        assert (wrong.status, wrong.output) == ("failed", "error: type mismatch\n")
        unproved = session.run("theorem t : f = 3 := by sorry")
        assert unproved.status == "failed" and "warning: declaration uses 'sorry'" in unproved.output
        assert session.run("#eval f").output == "info: 2\n"
    with lean.start(hasty) as session:
        assert session.run("#sleep").status == "too long"
    with lean.start(sandbox) as session:
        assert session.run("#exit").status == "ended"


def test_an_environment_endures_what_ends_the_interpreter(hasty: Sandbox, language: Find) -> None:
    with Enduring(language("python"), hasty, restarts=1) as environment:
        environment.run("x = 1")
        assert environment.run("import os; x = 2; os._exit(1)").status == "ended"
        assert environment.run("x").output == "1\n"
        assert environment.run("while True: pass").status == "too long"
        assert environment.run("x").status == "not run"


def test_variations_show_what_is_not_reproducible(sandbox: Sandbox, language: Find) -> None:
    source = "import datetime, socket\n{'a', 'b', 'c', 'd'}\ndatetime.date.today()\nsocket.gethostname()\nsum(range(9))"
    outputs = []
    for variation in ({}, {"variation": SECOND}):
        with language("python").start(sandbox, **variation) as session:
            outputs.append(session.run(source).output.splitlines())
    assert [first == second for first, second in zip(*outputs, strict=True)] == [False, False, False, True]


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    for names, config, words in (
        (["perl"], None, "unknown language 'perl'"),
        ([], None, "no language"),
        (["lean"], None, "--lean"),
        (["coq"], LanguagesConfig(coq=tmp_path / "coqtop"), "there is no"),
        (["smt"], LanguagesConfig(smt=Path("/bin/false")), "does not tell its version"),
    ):
        with pytest.raises(UserError, match=words):
            open_languages(names, config)


def test_what_does_not_start_is_an_error(sandbox: Sandbox) -> None:
    config = LanguagesConfig(lean="/usr/bin/python3 -c 'raise SystemExit(\"no olean\")'")
    with pytest.raises(UserError, match=r"lean does not start.*no olean"):
        open_languages(["lean"], config)["lean"].start(sandbox)


def test_a_machine_without_walls_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(UserError, match=r"no sandbox.*bubblewrap"):
        open_sandbox()
    said: list[str] = []
    bare = open_sandbox(without=True, warn=said.append)
    assert "NO SANDBOX" in said[0] and not bare.enclosed
    with open_languages(["python"])["python"].start(bare) as session:
        assert session.run("1 + 1").output == "2\n"
        assert session.run("import os; len(os.environ), os.listdir('.')").output.endswith(", [])\n")


def test_walls_that_do_not_stand_are_found(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from megarc.interpreter.sandbox import Program

    for output, words in (
        ("rights: 3fff", "rights"),
        ("interfaces: lo eth0", "interfaces"),
        ("", "cannot enclose"),
    ):
        good = "interfaces: lo\nrights:\nprocesses: 32\nfiles: own\nroot: closed\ntmp: writable\n"
        name = output.split(":")[0]
        said = (
            "\n".join(output if line.startswith(name) else line for line in good.splitlines())
            if output
            else ""
        )
        monkeypatch.setattr(bubblewrap, "TRIAL", Program(("/bin/echo", said)))
        with pytest.raises(UserError, match=words):
            open_sandbox(Limits())


@given(
    st.lists(
        st.sampled_from(["Check 3.", "intros x.", "-", "{", 'Notation "a . b" := c.', "x.y."]), max_size=6
    )
)
def test_sentences_come_apart_as_they_were_put_together(whole: list[str]) -> None:
    assert sentences(' (* a. (* b *) ". *)" *)\n'.join([*whole, ""]))[0] == whole


def test_half_a_sentence_is_left_over() -> None:
    assert sentences("Check 1. Check 2")[1] == "Check 2"
    assert sentences('Check 1. "a. b')[0] == ["Check 1."]
    assert sentences("Check 1. (* a. (* b *)")[0] == ["Check 1."]


def test_commands_of_smt_lib() -> None:
    source = '(echo "a ) "" (") ; (\n(assert |a ) b|)'
    assert commands(source) == (['(echo "a ) "" (")', "; (\n(assert |a ) b|)"], "")
    assert complete(source) and complete("; only words") and complete("")
    assert not complete("(assert") and not complete("(a))") and not complete('(echo "')


@given(st.binary(max_size=60))
def test_clean_text_can_be_shown_and_packed(written: bytes) -> None:
    text = clean(written)
    assert (
        text.encode()
        and all(character in "\n\t" or character.isprintable() or ord(character) > 160 for character in text)
    ) or not text
