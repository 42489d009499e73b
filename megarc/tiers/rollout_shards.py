"""Roll-outs under way: a file a shard, so that a killed job loses only those that it was at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from megarc.atomic_write import cannot_write, written_atomically
from megarc.config import to_dict
from megarc.corpus import IndexedWriter, cheap_digest, dtype_for
from megarc.errors import UserError
from megarc.tiers.rollout_store import RolloutFacts, Rollouts, Written, log_probability_file, sidecar


class Shards:
    """Roll-outs under way: a file a shard, kept while the plan is the same.

    Args:
        size: boundaries of a shard.
    """

    def __init__(self, prefix: Path, facts: RolloutFacts, size: int) -> None:
        self.prefix, self.facts, self.size = prefix, facts, size
        self.folder = Path(f"{prefix}.parts")
        self.count = -(-facts.boundaries // size)

    def open_folder(self) -> None:
        """Makes the folder. One rank only."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def keep_only_this_plan(self) -> None:
        """Shards of another plan go. One rank only, which holds the folder's lock."""
        mark, plan = self.folder / "plan", f"{self.facts.plan()} {self.size}"
        if mark.exists() and mark.read_text() == plan:
            return
        for old in self.folder.glob("shard-*"):
            old.unlink()
        with written_atomically(mark) as file:
            file.write(plan.encode())

    def boundaries(self, shard: int) -> range:
        """Those of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.facts.boundaries))

    def missing(self) -> list[int]:
        """Shards that are still to be made."""
        return [shard for shard in range(self.count) if not self._path(shard).exists()]

    def save(self, shard: int, written: Written) -> None:
        """A whole shard, or none."""
        with written_atomically(self._path(shard)) as file:
            np.savez(file, tokens=written[0].astype(np.int32), log_probabilities=written[1])

    def join(self) -> Rollouts:
        """Shards to roll-outs; the sidecar last, then the shards go. One rank only."""
        facts = self.facts
        shape = (facts.boundaries, facts.samples, facts.tokens)
        with IndexedWriter(self.prefix, dtype_for(facts.vocabulary or 1 << 31)) as writer:
            for tokens, _ in self._read():
                writer.add(tokens.reshape(-1), np.full(tokens.shape[0] * tokens.shape[1], facts.tokens))
            content = writer.finish().content_digest
        with written_atomically(log_probability_file(self.prefix)) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            for _, logp in self._read():
                file.write(logp.astype("<f4").tobytes())
        with written_atomically(sidecar(self.prefix)) as file:
            written = to_dict(
                facts.model_copy(update={"content": content, "sampled": cheap_digest(self.prefix)})
            )
            file.write(orjson.dumps(written, option=orjson.OPT_INDENT_2) + b"\n")
        shutil.rmtree(self.folder, ignore_errors=True)
        return Rollouts(self.prefix)

    def _read(self) -> Iterator[Written]:
        for shard in range(self.count):
            try:
                with np.load(self._path(shard), allow_pickle=False) as file:
                    yield file["tokens"], file["log_probabilities"]
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"the shard {self._path(shard)} is damaged ({error}); remove it and run again"
                ) from None

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:06d}.npz"
