"""Makes corpora of shards: of one job's, or of the parts that several machines made."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from megarc.corpus.indexed.corpus import dtype_for
from megarc.corpus.indexed.digest import cheap_digest, root_of
from megarc.corpus.indexed.manifest import BinDigests, InputFacts, Manifest, write_manifest
from megarc.corpus.indexed.writer import Written
from megarc.corpus.packing.bad_lines import settle_rejects
from megarc.corpus.packing.merge import split_prefix, write_corpora
from megarc.corpus.packing.pack_piece import UNBALANCED
from megarc.corpus.packing.shard import Plan, Shard, SpanFacts
from megarc.corpus.packing.work_folder import locked, parts_folder
from megarc.errors import UserError
from megarc.object_store import is_stored
from megarc.progress import progress

_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.shard")


def join_shards(
    shards: Sequence[Shard], plan: Plan, prefix: Path, max_bad: float, *, quiet: bool = False
) -> list[Manifest]:
    """Writes the corpus, or one for each split, and its manifest last.

    Raises:
        UserError: where there is no document, or too many lines are bad.
    """
    spans = [span for shard in shards for span in shard.facts.spans]
    names = [name for name, _ in plan.inputs]
    settle_rejects(spans, names, prefix, max_bad)
    if not sum(shard.facts.documents for shard in shards):
        raise UserError(f"the corpus would be empty: {len(names)} inputs hold no document")
    if not sum(shard.facts.tokens for shard in shards):
        raise UserError(
            f"the corpus would be empty: the {plan.tokenizer.kind} tokenizer with a vocabulary of "
            f"{plan.tokenizer.vocabulary_size} makes no token of the {len(names)} inputs; use another tokenizer"
        )
    dropped = {
        reason: count
        for reason in ("too short", "too long", UNBALANCED)
        if (count := sum(shard.facts.dropped.get(reason, 0) for shard in shards))
    }
    tokens = sum(shard.facts.tokens for shard in shards)
    with progress("merging", tokens, unit="tokens", quiet=quiet) as bar:
        dtype = dtype_for(plan.tokenizer.vocabulary_size)
        corpora = write_corpora(shards, prefix, plan.settings, dtype, bar)
    manifests = []
    for split, (written, text_bytes, duplicates) in corpora.items():
        counts = {**dropped, **({"duplicate": duplicates} if duplicates else {})}
        settings = plan.settings.model_copy(update={"split": split})
        manifest = manifest_of(written, split_prefix(prefix, split)).model_copy(
            update={
                "text_bytes": text_bytes,
                "tokenizer": plan.tokenizer,
                "settings": settings,
                "inputs": _input_facts(plan, spans),
                "dropped": counts,
            }
        )
        write_manifest(split_prefix(prefix, split), manifest)
        manifests.append(manifest)
    return manifests


def join_parts(prefix: Path, *, max_bad: float, quiet: bool = False, if_free: bool = False) -> list[Manifest]:
    """Verifies the parts in ``P.parts/`` and makes the corpus of them.

    Args:
        if_free: gives nothing, instead of an error, where another process joins them already.

    Raises:
        UserError: for a part that is missing, short, damaged or of another job, by name.
    """
    folder = parts_folder(prefix)
    try:
        lock = locked(folder / "lock", 0 if if_free else None)
    except FileNotFoundError:
        if if_free:
            return []
        raise UserError(f"there are no parts to join: {folder} does not exist") from None
    except UserError:
        if if_free:
            return []
        raise
    with lock:
        if if_free and not any(folder.glob("*.shard")):
            return []  # another process has joined them meanwhile
        shards = _parts_in(folder)
        plan = shards[0].facts.job
        if plan is None:
            raise UserError(f"{shards[0].path} contains no plan; pack it again")
        _check_parts(shards, plan)
        manifests = join_shards(shards, plan, prefix, max_bad, quiet=quiet)
        shutil.rmtree(folder, ignore_errors=True)
    return manifests


def manifest_of(written: Written, prefix: Path) -> Manifest:
    """What the files themselves tell, which are in place."""
    tree = written.bin_tree
    return Manifest(
        documents=written.documents,
        tokens=written.tokens,
        dtype=written.dtype,
        content_digest=written.content_digest,
        idx_digest=written.idx_digest,
        answers_digest=written.answers_digest,
        bin_digests=BinDigests(node_bytes=tree.node_bytes, nodes=list(tree.nodes), root=tree.root),
        sampled_digest=cheap_digest(prefix),
    )


def _parts_in(folder: Path) -> list[Shard]:
    found = {match[0]: match for path in folder.iterdir() if (match := _PART.fullmatch(path.name))}
    if not found:
        raise UserError(f"there are no parts to join in {folder}")
    counts = {int(match[2]) for match in found.values()}
    if len(counts) > 1:
        raise UserError(f"{folder} holds parts of several jobs (of {sorted(counts)}): remove the old ones")
    count = counts.pop()
    wanted = [f"part-{index:05d}-of-{count:05d}.shard" for index in range(count)]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{len(missing)} of {count} parts are missing in {folder}: {', '.join(missing[:8])}")
    return [Shard(folder / name) for name in wanted]


def _check_parts(shards: Sequence[Shard], plan: Plan) -> None:
    for index, shard in enumerate(shards):
        if shard.facts.plan != plan.digest or shard.facts.dtype != shards[0].facts.dtype:
            raise UserError(f"{shard.path} was packed from other inputs or settings than {shards[0].path}")
        if shard.facts.pieces != list(range(index, plan.pieces, len(shards))):
            raise UserError(f"{shard.path} is short: it lacks pieces of its part; pack it again")
        shard.verify()


def _input_facts(plan: Plan, spans: Sequence[SpanFacts]) -> list[InputFacts]:
    leaves: list[list[str]] = [[] for _ in plan.inputs]
    documents, rejects = [0] * len(plan.inputs), [0] * len(plan.inputs)
    for span in sorted(spans, key=lambda span: (span.input, span.start)):
        leaves[span.input] += span.leaves
        documents[span.input] += span.documents
        rejects[span.input] += span.rejects
    return [
        InputFacts(
            name=name,
            bytes=size,
            digest=None if name == "-" or is_stored(name) else root_of(leaves[number]),
            documents=documents[number],
            rejects=rejects[number],
        )
        for number, (name, size) in enumerate(plan.inputs)
    ]
