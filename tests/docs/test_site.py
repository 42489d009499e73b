"""The documentation's site: it builds without a dead link, and asks no other host for anything."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from support.scripts import ENVIRONMENT, ROOT

from megarc.key_reference import every_key
from megarc.train import RunConfig

pytestmark = pytest.mark.timeout(900)
QUIET = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}


def build(*arguments):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=QUIET, capture_output=True, text=True, timeout=800)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """What a browser would fetch with a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(found.get("src") or "")
        if tag == "link" and found.get("rel") in ("stylesheet", "preconnect", "preload", "icon"):
            self.addresses.append(found.get("href") or "")


def test_pages_fetch_nothing_from_other_hosts(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text())
        assert not [address for address in reader.addresses if "//" in address], page


def test_every_key_command_and_exported_name_is_there(site):
    keys = (site / "reference/keys.html").read_text()
    assert [key.path for key in every_key(RunConfig) if f"<code>{key.path}</code>" not in keys] == []
    commands = (site / "reference/commands.html").read_text()
    assert "usage: megarc pretrain" in commands and "usage: megarc preprocess" in commands
    names = (site / "reference/api.html").read_text()
    for name in ("megarc.window.Window", "megarc.attention.attend", "megarc.train.pretrain"):
        assert f'id="{name}"' in names, name
    packages = [path.parent.name for path in (ROOT / "megarc").glob("*/__init__.py")]
    assert [name for name in packages if f">megarc.{name}<" not in names] == []


def test_a_dead_link_and_a_dead_anchor_fail(tmp_path):
    """The settings of mkdocs.yml make --strict find both."""
    settings = re.search(r"^validation:\n(?:  .+\n)+", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)[0]
    for words in ("[dead](nowhere.md)", "[dead](index.md#nowhere)", "fine"):
        shutil.rmtree(tmp_path / "docs", ignore_errors=True)
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs/index.md").write_text(f"# Page\n\n{words}\n")
        (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{settings}")
        done = build("--config-file", tmp_path / "mkdocs.yml", "--site-dir", tmp_path / "site")
        assert (done.returncode == 0) == (words == "fine"), done.stderr
