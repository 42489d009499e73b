"""Pages of the site that are made from other files and from the code: first page, keys, commands, API."""

from __future__ import annotations

import ast
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from megarc.command import pages, summary
from megarc.key_reference import Key, every_key

ROOT = Path(__file__).parents[1]
ROOMS = (
    "window",
    "interval",
    "config",
    "corpus",
    "data",
    "attention",
    "parallel",
    "model",
    "train",
    "inference",
)
ROOMS += ("jobs", "batchsize", "tiers", "plan", "science", "report", "interpreter", "harness")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made; pages that nobody listed go at the end of the navigation by themselves."""
    made = {
        "index.md": _from_root("README.md"),
        "contributing.md": _from_root("CONTRIBUTING.md"),
        "changelog.md": _from_root("CHANGELOG.md"),
        "reference/keys.md": keys_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": api_page(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"measured/{picture.name}", abs_src_path=str(picture)))
    _list_the_rest(files, config)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Pictures of benchmarks lie outside docs/ in the repository."""
    return markdown.replace("](../benchmarks/results/", "](measured/")


def _list_the_rest(files: Files, config: MkDocsConfig) -> None:
    """A page that was written after mkdocs.yml is found in the navigation too."""
    listed = re.findall(r"[\w/-]+\.md", str(config.nav))
    here = {file.src_uri for file in files.documentation_pages()}
    rest = sorted(here - set(listed))
    if rest:
        config.nav = [*(config.nav or []), {"More": rest}]


def _from_root(name: str) -> str:
    """A page of the repository's top, with links as seen from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\[([^\]]+)\]\((LICENSE|CITATION\.cff)\)", r"\1", text)  # not pages
    for page in ("CONTRIBUTING", "CHANGELOG"):
        text = text.replace(f"]({page}.md)", f"]({page.lower()}.md)")
    return text


def keys_page() -> str:
    """Every key of the four kinds of configuration."""
    from megarc.batchsize import StudyConfig
    from megarc.science.studies import GridConfig
    from megarc.science.tasks import KINDS
    from megarc.tiers import RolloutsConfig, StackConfig
    from megarc.train import RunConfig

    run = list(every_key(RunConfig))
    known = {key.path for key in run}
    study = [key for key in every_key(StudyConfig) if key.path not in known]
    parts = [
        "# All keys\n",
        "This page is made from the code. `megarc pretrain --keys` prints the same for the version that you have. "
        "A key in the column *resume* may change when a run is resumed; a resumed run refuses another value of any "
        "other key. An amount is written as `300 steps`, `2B tokens`, `5k samples` or `0.1 of run`.\n",
        "## A run\n\nRead by `megarc pretrain`.\n",
        *_tables(run, "###"),
        "## A study of the batch\n\nRead by `megarc tune-batch`, beside the keys of a run.\n",
        *_tables(study, "###"),
        "## A study of arms\n\nRead by `megarc study`. `run` holds the keys of a run.\n",
        _table([key for key in every_key(GridConfig) if not key.path.startswith("run.")]),
        "## Options of theory tasks\n\nRead from `data.train[].options` by the source of each kind.\n",
        *(f"### {kind}\n\n{_table(list(every_key(task.options)))}" for kind, task in KINDS.items()),
        "## A stack of tiers\n\nRead by `megarc tiers`. A tier's `run` holds the keys of a run.\n",
        _table(list(every_key(StackConfig))),
        "## A job of roll-outs\n\nRead by `megarc rollouts`; `megarc tiers` writes such files.\n",
        _table(list(every_key(RolloutsConfig))),
    ]
    return "\n".join(parts)


def _tables(keys: list[Key], heading: str) -> Iterator[str]:
    """A table for each top-level group; keys without a group come first."""
    groups: dict[str, list[Key]] = {}
    for key in keys:
        top, dot, _ = key.path.replace("[]", "").partition(".")
        groups.setdefault(top if dot else "", []).append(key)
    for name in sorted(groups, key=bool):
        yield f"{heading} {name or 'Top level'}\n\n{_table(groups[name])}"


def _table(keys: list[Key]) -> str:
    rows = [
        f"| `{key.path}` | {_cell(key.type)} | {_cell(key.default)} | {_plain(key.meaning)} | {'yes' * key.resume} |"
        for key in keys
    ]
    return "\n".join(["| key | type | default | meaning | resume |", "|---|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else "required"


def _plain(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def commands_page() -> str:
    """The help of every command."""
    parts = ["# All commands\n", "This page is made from the commands' own `--help`.\n"]
    os.environ["COLUMNS"] = "110"
    before, word = list(sys.path), sys.argv[0]
    for name, path in pages().items():
        sys.path[0] = str(path if path.is_dir() else path.parent)
        make = runpy.run_path(str(path), run_name="page")["parser"]
        sys.argv[0] = f"megarc {name}"  # examples are those of the command
        parser = make()
        parser.prog = f"megarc {name}"
        text = parser.format_help().rstrip()
        parts.append(f"## megarc {name}\n\n{_plain(summary(path))}\n\n```text\n{text}\n```\n")
    sys.path[:], sys.argv[0] = before, word
    return "\n".join(parts)


def api_page() -> str:
    """The names that each room exports, from their docstrings."""
    parts = [
        "# Python API\n",
        "These are the names that each package exports. This page is made from docstrings.\n",
    ]
    for room in ROOMS:
        source = ROOT / "megarc" / room / "__init__.py"
        if not source.exists():
            source = ROOT / "megarc" / f"{room}.py"
        if not source.exists():
            continue
        tree = ast.parse(source.read_text(encoding="utf-8"))
        parts.append(f"## megarc.{room}\n\n{ast.get_docstring(tree) or ''}\n")
        parts += [f"::: megarc.{room}.{name}\n" for name in _exported(tree)]
    return "\n".join(parts)


def _exported(tree: ast.Module) -> list[str]:
    """``__all__``, or else every public class and function."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
