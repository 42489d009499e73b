"""What was run is not run again: answers on disk, under the digest of all that they depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically


class Cache:
    """Entries in ``folder``, whole or not there; any number of threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: Any) -> Any:
        """What was put under ``key``; None where nothing was, or what lies there is damaged."""
        try:
            return orjson.loads(self._path(key).read_bytes())["answers"]
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def put(self, key: Any, answers: Any) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as file:
            file.write(orjson.dumps({"answers": answers}))

    def _path(self, key: Any) -> Path:
        digest = hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.json"
