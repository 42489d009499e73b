"""Text to a corpus on disk: plan, share out among workers, merge.

The work lies in ``P.parts/`` until the corpus is whole. Every step is written
beside, synced and renamed, so the same command goes on after a kill; the result
depends on inputs, tokenizer and settings alone, never on workers, parts or luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megarc.corpus.indexed.manifest import Manifest, PackSettings, load_manifest
from megarc.corpus.inputs.find_files import find_inputs, in_words
from megarc.corpus.inputs.split_files import cut, uncut
from megarc.corpus.packing.assemble import join_parts, join_shards
from megarc.corpus.packing.bad_lines import check_early
from megarc.corpus.packing.merge import merged
from megarc.corpus.packing.pack_piece import Job, News, pack_piece
from megarc.corpus.packing.shard import Plan, Shard, write_shard
from megarc.corpus.packing.work_folder import WorkFolder
from megarc.corpus.packing.workers import share_out
from megarc.corpus.tokenizer import EngineError, Tokenizer, load_tokenizer, with_fast_engine
from megarc.corpus.transcript import TranscriptTokenizer
from megarc.errors import UserError
from megarc.progress import human, human_bytes, progress

MAX_BAD = 0.001
_MOST_MEGABYTES = 120  # resident, of a worker, before another takes its place


@dataclass(frozen=True)
class PackRequest:
    """What to pack, and how much at once. See ``data_tools/preprocess.py --help`` for each."""

    inputs: Sequence[str]
    prefix: Path
    tokenizer: str
    settings: PackSettings = field(default_factory=PackSettings)
    eod_token: str | None = None  # that ends a document, or its id; None: as the tokenizer's files say
    exclude: Sequence[str] = ()
    workers: int = 1
    part: tuple[int, int] = (0, 1)  # i of n
    engine: str = "auto"  # or "plain": never the fast one
    max_bad: float = MAX_BAD
    quiet: bool = False
    say: Callable[[str], None] = lambda line: None


def pack(request: PackRequest) -> list[Manifest]:
    """Packs ``request.inputs`` into the corpus P (or P_train, P_valid, ... where there are splits).

    With a part (i, n) it packs that part alone, into ``P.parts/``, and gives no
    manifest: ``join_parts`` makes the corpus of all of them.

    Raises:
        UserError: for bad input, too many bad lines, a full disk, a worker that died. Whole pieces are kept.
    """
    try:
        return _pack(request)
    except EngineError as error:
        request.say(f"{error}; starting again with the plain library")
        return _pack(replace(request, engine="plain"), anew=True)


def _pack(request: PackRequest, *, anew: bool = False) -> list[Manifest]:
    job, plan, todo = _prepare(request)
    index, parts = request.part
    with WorkFolder(request.prefix, index, parts, plan, job.inputs) as folder:
        if parts > 1 and folder.part_is_whole():
            request.say(f"part {index} of {parts} is whole already")
            return []
        if anew:
            folder.clear()
        job = replace(job, folder=folder.shards)
        _work(job, todo, request)
        shards = [Shard(path) for piece in todo for path in job.shards(piece)]
        if parts > 1:
            _write_part(shards, folder, plan, request)
            return []
        manifests = join_shards(shards, plan, request.prefix, request.max_bad, quiet=request.quiet)
        folder.remove()
    return manifests


def pack_and_join(request: PackRequest) -> list[Manifest]:
    """Like ``pack``; the part that is the last one to be whole also joins them all (on a shared disk)."""
    manifests = pack(request)
    if request.part[1] > 1 and WorkFolder.all_parts_whole(request.prefix, request.part[1]):
        return join_parts(request.prefix, max_bad=request.max_bad, quiet=request.quiet, if_free=True)
    return manifests


def _prepare(request: PackRequest) -> tuple[Job, Plan, list[int]]:
    index, parts = request.part
    if not 0 <= index < parts:
        raise UserError(f"part {index} of {parts}: parts are numbered from 0 to {parts - 1}")
    if request.workers < 0:
        raise UserError(f"{request.workers} workers: there must be 0 (this process alone) or more")
    tokenizer = load_tokenizer(request.tokenizer, request.eod_token)
    if request.engine == "auto":
        tokenizer = with_fast_engine(tokenizer, request.say)
    if request.settings.transcripts:
        if request.settings.divided:
            raise UserError("--transcripts goes with whole texts; questions and answers are encoded apart")
        tokenizer = TranscriptTokenizer(tokenizer)
    if request.settings.append_end_of_document:
        _ = tokenizer.end_of_document  # raises where there is none
        request.say(f"each document ends with {tokenizer.end}")
    else:
        request.say(
            "documents end without a token between them (--no-append-eod): a model cannot tell where one ends"
        )
    for line in _replaced(request, tokenizer):
        request.say(line)
    inputs, passed = find_inputs(request.inputs, request.exclude, request.settings.format)
    if passed:
        request.say(f"skipped: {in_words(passed)}")
    if parts > 1 and any(file.name == "-" for file in inputs):
        raise UserError("standard input cannot be packed in parts: write it to files first")
    pieces = cut(inputs)
    for file in uncut(inputs, pieces):
        request.say(f"{file.name} cannot be cut, so one worker alone reads it ({human_bytes(file.bytes)})")
    plan = Plan(
        inputs=[(file.name, file.bytes) for file in inputs],
        pieces=len(pieces),
        tokenizer=tokenizer.facts(),
        settings=request.settings,
    )
    todo = list(range(index, len(pieces), parts))
    return Job(inputs, pieces, tokenizer, request.settings, plan.digest, Path()), plan, todo


def _replaced(request: PackRequest, tokenizer: Tokenizer) -> Iterator[str]:
    """A line for each corpus that stands there, made with another tokenizer, and will be overwritten."""
    for split in (None, *request.settings.splits):
        prefix = Path(f"{request.prefix}_{split}") if split else request.prefix
        try:
            manifest = load_manifest(prefix)
        except UserError:
            continue  # damaged: a new one takes its place
        made = manifest.tokenizer if manifest else None
        if made and (made.digest, made.end_of_document) != (
            tokenizer.digest,
            tokenizer.facts().end_of_document,
        ):
            yield (
                f"warning: {prefix} was made with another tokenizer ({made.kind}, {made.vocabulary_size} tokens, "
                f"end of document {made.end_of_document}) and will be overwritten; what was trained on it will not "
                "read the new one"
            )


def _work(job: Job, todo: Sequence[int], request: PackRequest) -> None:
    """Packs the pieces that are not whole yet."""
    left = [piece for piece in todo if not job.shards(piece)]
    if len(left) < len(todo):
        request.say(f"resuming: {len(todo) - len(left)} of {len(todo)} pieces are complete already")
    spans = [span for piece in left for span in job.pieces[piece]]
    unsized = not all(job.inputs[span.input].sized for span in spans)
    size = None if unsized else sum(span.stop - span.start for span in spans)
    tokens = lines = rejects = 0
    with progress("packing", size, unit="B", quiet=request.quiet) as bar:

        def heard(news: News) -> None:
            nonlocal tokens, lines, rejects
            tokens, lines, rejects = tokens + news.tokens, lines + news.lines, rejects + news.rejects
            bar.advance(news.bytes, tokens=human(tokens), rejects=rejects)
            check_early(rejects, lines, request.max_bad)

        workers = min(request.workers, len(left))
        share_out(
            lambda piece, tell: pack_piece(job, piece, tell),
            left,
            workers,
            heard,
            job.describe,
            most_megabytes=_MOST_MEGABYTES,
        )


def _write_part(shards: Sequence[Shard], folder: WorkFolder, plan: Plan, request: PackRequest) -> None:
    facts = {
        "plan": plan.digest,
        "pieces": sorted(piece for shard in shards for piece in shard.facts.pieces),
        "spans": [span for shard in shards for span in shard.facts.spans],
        "dropped": _added([shard.facts.dropped for shard in shards]),
        "part": request.part,
        "job": plan,
    }
    write_shard(folder.part_path, merged(shards), shards[0].dtype if shards else "uint16", facts)
    folder.remove()


def _added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(some.get(name, 0) for some in counts) for some in counts for name in some}
