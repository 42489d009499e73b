"""Roll-outs on disk: a companion of a source, aligned by boundary.

P.bin, P.idx          tokens, as any corpus: document i * K + j is roll-out j of boundary i
P.logp.npy            [boundaries, K, m] float32: each token's log-probability under its writer, in nats
P.rollouts.json       last: who wrote them, where, how; without it there are no roll-outs
P.parts/              while they are made: a file for each shard of boundaries
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from megarc.config import Config, build, key, to_dict
from megarc.corpus import IndexedCorpus, cheap_digest
from megarc.data import Source
from megarc.errors import UserError
from megarc.tiers.config import WritesConfig
from megarc.window import Window

FORMAT = "megarc roll-outs"
_FOUND = ("content", "sampled")  # read from the files, not planned

Written: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Tokens and log-probabilities, both [boundaries, K, m]."""


class RolloutFacts(Config):
    """The sidecar P.rollouts.json."""

    format: str = key(FORMAT, "always this")
    tier: int = key(meaning="the writer's number in its stack")
    writer: str = key(meaning="digest of the writer's checkpoint")
    source: str = key(meaning="digest of the source at whose boundaries they stand")
    window: list[int] = key(meaning="that source's window: recent, causal, stride")
    boundaries: int = key(meaning="how many", ge=1)
    vocabulary: int | None = key(None, "ids lie below it")
    tokenizer: str | None = key(None, "digest of the tokenizer; null where unknown")
    reads: list[str] = key([], "content digests of the roll-outs that the writer read")
    samples: int = key(meaning="K", ge=1)
    tokens: int = key(meaning="m", ge=1)
    temperature: float = key(meaning="logits were divided by it")
    top_k: int = key(meaning="drawn among so many likeliest; 0: all")
    top_p: float = key(meaning="drawn among the likeliest of this share")
    seed: int = key(meaning="of the draws")
    content: str | None = key(None, "digest of the .bin and .idx")
    sampled: str | None = key(None, "of the .idx and pages of the .bin, compared at every opening")

    def plan(self) -> str:
        """A digest of everything that decides the tokens."""
        tree = {name: value for name, value in to_dict(self).items() if name not in _FOUND}
        return hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()


def facts_of(
    source: Source,
    window: Window,
    writes: WritesConfig,
    *,
    tier: int,
    writer: str,
    reads: list[str],
    seed: int,
) -> RolloutFacts:
    """The sidecar of roll-outs that are still to be made."""
    return RolloutFacts(
        tier=tier, writer=writer, source=source.digest, window=[window.recent, window.causal, window.stride],
        boundaries=len(source), vocabulary=source.facts.vocabulary, tokenizer=source.facts.tokenizer_digest,
        reads=reads, samples=writes.samples, tokens=writes.tokens, temperature=writes.temperature,
        top_k=writes.top_k, top_p=writes.top_p, seed=seed,
    )  # fmt: skip


class Rollouts:
    """Stored roll-outs, by memory map.

    Attributes:
        tokens: [boundaries, K, m] of the type on disk.
        log_probabilities: [boundaries, K, m] float32, nats.

    Raises:
        UserError: where they are missing, unfinished or damaged.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.facts = _read_sidecar(prefix)
        shape = (self.facts.boundaries, self.facts.samples, self.facts.tokens)
        corpus = IndexedCorpus(prefix)
        if len(corpus.tokens) != int(np.prod(shape)):
            raise UserError(
                f"{prefix}.bin holds {len(corpus.tokens)} tokens where {prefix}.rollouts.json tells of {shape}"
            )
        if self.facts.sampled not in (None, cheap_digest(prefix)):
            raise UserError(
                f"{prefix}.bin and .idx are not the roll-outs that {sidecar(prefix)} describes; bring these back, or "
                "remove the sidecar and make them again"
            )
        self.tokens: npt.NDArray[Any] = np.asarray(corpus.tokens).reshape(shape)
        self._shape = shape

    @property
    def log_probabilities(self) -> npt.NDArray[np.float32]:
        path = log_probability_file(self.prefix)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); make the roll-outs again") from None
        if found.shape != self._shape:
            raise UserError(
                f"{path} has shape {found.shape}, the roll-outs have {self._shape}; make them again"
            )
        return found

    def check(self, source: Source, window: Window) -> None:
        """Refuses roll-outs that stand at other boundaries.

        Raises:
            UserError: where corpus, window or tokenizer differ.
        """
        facts = self.facts
        for what, there, here in (
            ("tokenizer", facts.tokenizer, source.facts.tokenizer_digest),
            ("vocabulary", facts.vocabulary, source.facts.vocabulary),
            ("window", facts.window, [window.recent, window.causal, window.stride]),
            ("corpus", facts.source, source.digest),
            ("number of boundaries", facts.boundaries, len(source)),
        ):
            if there != here:
                raise UserError(
                    f"the roll-outs {self.prefix} were made for another {what} ({there}) than {source.facts.name} "
                    f"has ({here}); make them for this one with launch/rollouts.py"
                )


def exists(prefix: Path, facts: RolloutFacts) -> bool:
    """Whether these very roll-outs are there, whole.

    Raises:
        UserError: where others have their name.
    """
    if not sidecar(prefix).exists():
        return False
    there = _read_sidecar(prefix)
    if there.plan() == facts.plan():
        return True
    mine, theirs = to_dict(facts), to_dict(there)
    other = [
        f"{name} {theirs[name]!r} there, {mine[name]!r} now"
        for name in mine
        if name not in _FOUND and mine[name] != theirs[name]
    ]
    raise UserError(
        f"{prefix} contains other roll-outs: {'; '.join(other)}. "
        f"Remove {prefix}.* to make them again, or give another name"
    )


def sidecar(prefix: Path) -> Path:
    return Path(f"{prefix}.rollouts.json")


def log_probability_file(prefix: Path) -> Path:
    return Path(f"{prefix}.logp.npy")


def _read_sidecar(prefix: Path) -> RolloutFacts:
    path = sidecar(prefix)
    try:
        tree = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        parts = Path(f"{prefix}.parts")
        if parts.is_dir():
            done = len(list(parts.glob("shard-*.npz")))
            raise UserError(
                f"the roll-outs {prefix} are unfinished: {done} shards are there; give the command that makes "
                "them (launch/rollouts.py) again; it resumes from these"
            ) from None
        raise UserError(
            f"no such roll-outs: there is no file {path}; launch/rollouts.py makes them"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); make the roll-outs again") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise UserError(f"{path} is not a sidecar of roll-outs; make them again with launch/rollouts.py")
    return build(RolloutFacts, tree, str(path))
