"""The command ``megarc``: the pages of ``launch/`` and ``data_tools/``, each under its name.

``megarc pretrain --config FILE`` is ``python launch/pretrain.py --config FILE``, in a checkout and
from a wheel alike. Nothing but the page that is asked for gets imported.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
import types
from pathlib import Path

from megarc import __version__
from megarc.errors import EXIT_USER_ERROR

_USAGE = """usage: megarc COMMAND ...      megarc COMMAND --help shows a command's options and examples

{commands}

options:
  --version   print the version
  -h, --help  show this

Under a launcher that starts ranks:
  torchrun --nproc-per-node 2 -m megarc pretrain --config FILE
  deepspeed --module megarc pretrain --config FILE
  srun -N 2 --ntasks-per-node 8 megarc pretrain --config FILE"""


def resources() -> Path:
    """The folder of ``launch``, ``data_tools`` and ``configs``: in a wheel the package, else the checkout."""
    package = Path(__file__).resolve().parent
    return package if (package / "launch").is_dir() else package.parent


def pages() -> dict[str, Path]:
    """The script, or the folder that runs as one, behind each command."""
    root = resources()
    scripts = [*sorted((root / "data_tools").glob("*.py")), *sorted((root / "launch").glob("*.py"))]
    folders = sorted(path.parent for path in (root / "launch").glob("*/__main__.py"))
    return {_name(path): path for path in [*scripts, *folders] if not path.stem.startswith("_")}


def main() -> None:
    """Runs ``megarc COMMAND ...``: the page sees what it would see as a script."""
    words = sys.argv[1:]
    while words and words[0].startswith("--local_rank"):  # deepspeed --module puts it before the command
        words.pop(0)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(f"megarc {__version__}")
        return
    known = pages()
    name = words[0].replace("_", "-").removesuffix(".py")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "megarc --help lists them"
        print(f"error: megarc has no command '{words[0]}'; {hint}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    sys.argv = [f"megarc {name}", *words[1:]]
    _run(known[name])


def _run(page: Path) -> None:
    """Runs a page as Python runs a script, but leaves ``sys.argv[0]``, which its --help shows."""
    script = _source(page)
    sys.path[0] = str(script.parent)
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), script, "exec"), module.__dict__)  # noqa: S102  (a page of this package)


def usage() -> str:
    """Every command with the first line of its page."""
    found = {name: summary(path) for name, path in pages().items()}
    width = max(map(len, found))
    return _USAGE.format(commands="\n".join(f"  {name:<{width}}  {words}" for name, words in found.items()))


def examples(text: str) -> str:
    """A page's examples as its reader types them: ``megarc NAME`` where the page runs as a command of megarc."""
    if not sys.argv[0].startswith("megarc "):
        return text
    script = r"(?:launch|data_tools)/(\w+)(?:\.py)?\b"

    def command(found: re.Match[str]) -> str:
        launcher, options, name = found[1], found[2], found[3].replace("_", "-")
        if launcher == "python":
            return f"megarc {name}"
        return f"{launcher}{options} {'--module' if launcher == 'deepspeed' else '-m'} megarc {name}"

    return re.sub(rf"\b(python|deepspeed|torchrun)((?: -\S+(?: \d+)?)*) {script}", command, text)


def summary(page: Path) -> str:
    """The first line of a page's docstring, read without running the page."""
    words = ast.get_docstring(ast.parse(_source(page).read_text(encoding="utf-8"))) or ""
    return words.partition("\n")[0]


def _source(page: Path) -> Path:
    return page / "__main__.py" if page.is_dir() else page


def _name(page: Path) -> str:
    return page.stem.replace("_", "-")
