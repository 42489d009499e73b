"""A run's copy in an object store: what lies where, which checkpoints are whole, which may go.

URL/environment.json, config.yaml, state.json, metrics.jsonl, log.txt, tokenizer/...   as in the run folder
URL/checkpoints/step-000001000/copying.json      which checkpoint is on its way here, until its manifest
URL/checkpoints/step-000001000/rank-...          its files
URL/checkpoints/step-000001000/manifest.json     last: without it the checkpoint does not exist
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from megarc.object_upload import get_bytes, names_below, remove
from megarc.train.checkpoint.layout import MANIFEST
from megarc.train.checkpoint.storage_level import superfluous
from megarc.train.schedule import Interval

COPYING = "copying.json"
_STEP = re.compile(r"step-([0-9]+)")


@dataclass
class StoredCheckpoints:
    """The checkpoints below ``url``."""

    url: str
    _manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def place(self, name: str) -> str:
        """The URL of the checkpoint ``step-000001000``."""
        return f"{self.url}/checkpoints/{name}"

    def listed(self) -> dict[str, list[str]]:
        """The objects of each checkpoint, whole or not, the oldest first.

        Raises:
            UserError: if the store refuses a request or does not answer; so all methods.
        """
        found: dict[str, list[str]] = {}
        for name in names_below(f"{self.url}/checkpoints"):
            folder, slash, file = name.partition("/")
            if slash and _STEP.fullmatch(folder):
                found.setdefault(folder, []).append(file)
        return dict(sorted(found.items(), key=lambda entry: step_of(entry[0])))

    def whole(self) -> list[str]:
        """Those with a manifest, the oldest first."""
        return [name for name, files in self.listed().items() if MANIFEST in files]

    def manifest(self, name: str) -> bytes | None:
        """A manifest as it was written; None: there is none."""
        return get_bytes(f"{self.place(name)}/{MANIFEST}")

    def remove(self, name: str, files: Sequence[str]) -> None:
        """The manifest goes first: what is half removed must not look whole."""
        self._manifests.pop(name, None)
        order = sorted(files, key=lambda file: file != MANIFEST)
        remove([f"{self.place(name)}/{file}" for file in order])

    def remove_beyond(self, step: int) -> None:
        """Removes the checkpoints of later steps: they stand for a run that did not happen."""
        for name, files in self.listed().items():
            if step_of(name) > step:
                self.remove(name, files)

    def prune(self, newest: str, keep: int, keep_every: Interval | None) -> None:
        """Removes what need not stay beside ``newest``, which was just copied, and what never became whole."""
        listed = self.listed()
        before = {name: files for name, files in listed.items() if step_of(name) <= step_of(newest)}
        counted = [name for name, files in before.items() if MANIFEST in files]
        standings = [self._standing(name) for name in counted]
        for place in superfluous(standings, keep, keep_every):
            self.remove(counted[place], before[counted[place]])
        for name, files in before.items():
            if MANIFEST not in files and name != newest:
                self.remove(name, files)

    def _standing(self, name: str) -> tuple[int, int]:
        """Steps and samples; of a damaged manifest the steps in its name."""
        if name not in self._manifests:
            try:
                self._manifests[name] = orjson.loads(self.manifest(name) or b"{}")["standing"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                return step_of(name), 0
        standing = self._manifests[name]
        return int(standing["step"]), int(standing["samples"])


def step_of(name: str) -> int:
    """1000 of ``step-000001000``."""
    return int(name.rpartition("-")[2])
