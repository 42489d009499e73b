"""Tables of figures say what made them, and which are older than their code is seen."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from stale import mark_of, stale, tables  # noqa: E402

PAGE = """# Speed

`python benchmarks/one.py`

{mark}

| way | seconds |
| --- | ------: |
| a   |    1.25 |

| key | meaning |
|---|---|
| a | words alone need no mark |
"""


@pytest.fixture
def root(tmp_path):
    for name, text in {
        "benchmarks/one.py": "from megarc.deep import value\nworker = 'worker.py'\n",
        "benchmarks/worker.py": "print(1)\n",
        "benchmarks/other.py": "print(2)\n",
        "megarc/deep/__init__.py": "from megarc.deep.number import value\n",
        "megarc/deep/number.py": '"""A number."""\nvalue = 1  # one\n',
        "docs/speed.md": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "docs/speed.md").write_text(PAGE.format(mark=mark_of("benchmarks/one.py", tmp_path)))
    return tmp_path


@pytest.mark.parametrize("file", ["benchmarks/one.py", "benchmarks/worker.py", "megarc/deep/number.py"])
def test_code_that_the_script_leads_to_makes_a_table_stale(root, file):
    assert list(stale(root)) == []
    (root / file).write_text((root / file).read_text() + "more = 2\n")
    assert list(stale(root)) == ["docs/speed.md:7: benchmarks/one.py or what it imports has changed"]


def test_comments_docstrings_and_other_scripts_do_not(root):
    (root / "megarc/deep/number.py").write_text('"""Another docstring."""\n\nvalue = (1)\n')
    (root / "benchmarks/other.py").write_text("print(3)\n")
    assert list(stale(root)) == []


def test_a_table_without_a_mark_and_a_script_that_is_gone_are_listed(root):
    (root / "docs/speed.md").write_text(PAGE.format(mark=""))
    assert list(stale(root)) == ["docs/speed.md:7: no mark says what made it"]
    (root / "docs/speed.md").write_text(
        PAGE.format(mark="<!-- made by benchmarks/no.py, code 0123456789ab -->")
    )
    assert list(stale(root)) == ["docs/speed.md:7: benchmarks/no.py is gone"]
    (root / "docs/speed.md").write_text(PAGE.format(mark="<!-- measured by hand at d98e8a64 -->"))
    assert list(stale(root)) == ["docs/speed.md:7: measured by hand at d98e8a64"]


def test_every_table_of_figures_of_ours_says_what_made_it():
    found = [page for page in (ROOT / "docs").glob("*.md") if tables(page.read_text().splitlines())]
    assert len(found) >= 8
    assert [line for line in stale(ROOT) if line.endswith(("no mark says what made it", "is gone"))] == []
