"""The command ``megarc``."""

import subprocess
import sys

import pytest
from support.scripts import ENVIRONMENT, ROOT, run

from megarc.command import pages, summary
from megarc.config import dotted_keys
from megarc.train import RunConfig


def megarc(*words, **more):
    return run(sys.executable, "-m", "megarc", *words, **more)


def test_every_page_is_a_command_with_a_summary():
    names = {path.stem.replace("_", "-") for path in (ROOT / "launch").glob("[!_]*.py")}
    names |= {path.stem.replace("_", "-") for path in (ROOT / "data_tools").glob("[!_]*.py")}
    assert set(pages()) == names | {"demo"}
    shown = megarc("--help")
    for name, path in pages().items():
        assert f"  {name} " in shown and summary(path) in shown and summary(path)


def test_a_page_gets_its_words_and_its_exit_code(tmp_path):
    # deepspeed --module puts --local_rank before the command.
    shown = megarc("--local_rank=0", "verify", "--help")
    assert "usage: megarc verify" in shown and "megarc verify corpora/web_train" in shown
    assert "data_tools/" not in shown
    assert "error: " in megarc("verify", tmp_path / "nothing", code=2)
    assert "did you mean 'pretrain'?" in megarc("pretrian", code=2)
    assert "megarc --help lists them" in megarc("zzz", code=2)


def test_a_forgotten_environment_is_answered_in_a_sentence():
    """``python -S`` sees no packages, as another Python than the environment's."""
    scripts = [*pages().values(), *(ROOT / name / "_needs.py" for name in ("launch", "data_tools"))]
    for script in scripts:
        said = run(sys.executable, "-S", script, "--help", code=2)
        assert "numpy, pydantic; give `make install`" in said and "source .venv/bin/activate" in said, script
    assert "has no numpy" in run(sys.executable, "-S", "-m", "megarc", "pretrain", "--help", code=2)


def test_starting_it_imports_nothing_heavy(tmp_path):
    """``import megarc`` and the command's own code: no torch, no pydantic, no numpy."""
    heavy = ("torch", "deepspeed", "pydantic", "numpy", "yaml")
    script = f"import sys, megarc.command as c; c.usage(); print([name for name in {heavy} if name in sys.modules])"
    assert run(sys.executable, "-c", script).splitlines()[-1] == "[]"


def test_init_copies_and_never_overwrites_unasked(tmp_path):
    megarc("init", tmp_path)
    changed = tmp_path / "configs/runs/tiny.yaml"
    assert changed.read_bytes() == (ROOT / "configs/runs/tiny.yaml").read_bytes()
    assert all((tmp_path / "launch" / name).stat().st_mode & 0o111 for name in ("job.sh", "elastic.sh"))
    assert (tmp_path / "hostfile.example").exists()
    megarc("init", tmp_path)  # nothing differs
    changed.write_text("mine")
    assert "tiny.yaml would be replaced" in megarc("init", tmp_path, code=2)
    assert changed.read_text() == "mine"
    megarc("init", tmp_path, "--force")
    assert changed.read_text() != "mine"


@pytest.fixture(scope="module")
def completion():
    return megarc("completion", "bash")


@pytest.mark.parametrize(
    ("words", "wanted", "unwanted"),
    [
        (["megarc", "pre"], {"pretrain", "preprocess"}, {"evaluate"}),
        (["megarc", "pretrain", "--dry"], {"--dry-run"}, {"--keys"}),
        (["megarc", "pretrain", "optimizer.l"], {"optimizer.lr="}, {"optimizer.beta1="}),
        (["megarc", "tune-batch", "mi"], {"micro"}, {"steps"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(completion, words, wanted, unwanted):
    script = (
        f"{completion}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "compopt() { :; }\n"
        f"_megarc_without_space megarc {words[-1]} {words[-2]}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    found = set(done.stdout.split())
    assert wanted <= found and not unwanted & found, done.stdout + done.stderr


def test_dotted_keys_are_those_of_the_tree():
    keys = list(dotted_keys(RunConfig))
    assert {"window", "window.recent", "deepspeed"} <= set(keys) and len(keys) == len(set(keys)) > 80
