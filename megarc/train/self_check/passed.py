"""Which checks have passed: a check depends on software, layout and precision alone, so each is made once.

A record lies in the run's folder, and one in the user's cache folder for the other runs of this machine.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any

import orjson

import megarc
from megarc.atomic_write import written_atomically
from megarc.errors import UserError

_ENGINE = ("runtime/engine.py", "runtime/bf16_optimizer.py", "runtime/pipe/engine.py", "runtime/zero/stage3.py",
           "runtime/zero/stage_1_and_2.py")  # fmt: skip


def digest(facts: dict[str, Any]) -> str:
    """Of ``facts`` and of the software: versions, and the code of DeepSpeed's engines and of this package."""
    software = {
        "megarc": megarc.__version__,
        **{name: metadata.version(name) for name in ("torch", "deepspeed")},
    }
    content = hashlib.sha256(orjson.dumps([facts, software], option=orjson.OPT_SORT_KEYS))
    for file in [*_files("deepspeed", _ENGINE), *sorted(Path(__file__).parents[1].rglob("*.py"))]:
        content.update(file.read_bytes())
    return content.hexdigest()[:16]


def known(digest: str, folder: Path) -> bool:
    """Whether this check has passed, for this run or another one on this machine."""
    return digest in _read(folder) or (_cache() / f"{digest}.json").is_file()


def remember(digest: str, folder: Path, facts: dict[str, Any]) -> None:
    """Where a record cannot be written, the check is made again at the next start."""
    record = {**facts, "time": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError, UserError), written_atomically(_own(folder)) as file:
        file.write(orjson.dumps({**_read(folder), digest: record}, option=orjson.OPT_INDENT_2))
    with suppress(OSError, UserError), written_atomically(_cache() / f"{digest}.json") as file:
        file.write(orjson.dumps(record, option=orjson.OPT_INDENT_2))


def _own(folder: Path) -> Path:
    return folder / "self_check.json"


def _read(folder: Path) -> dict[str, Any]:
    with suppress(OSError, orjson.JSONDecodeError):
        found = orjson.loads(_own(folder).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "megarc" / "self_check"


def _files(package: str, names: tuple[str, ...]) -> list[Path]:
    found = util.find_spec(package)
    root = Path(found.origin).parent if found and found.origin else Path()
    return [root / name for name in names if (root / name).is_file()]
