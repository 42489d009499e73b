"""Damages corpora and inputs at random: each must end in a right answer or a clear error.

    python benchmarks/fuzz_corpus.py --mutations 10000

Never a traceback, a hang, or wrong data that ``verify`` calls whole. Damaged are the
.idx, .bin and manifest of a corpus, a part of a packing job, and inputs: JSON lines
(plain, gz, zst), a JSON list, parquet. What parquet itself cannot notice (a flipped
character in a page without checksum) counts as the file's own content.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from options import options

from megarc.corpus import IndexedCorpus, PackRequest, PackSettings, join_parts, pack, verify
from megarc.errors import UserError, run_script
from megarc.progress import progress

HANG_SECONDS = 30
NASTY = (b"\n", b'"', b"\xff", b"\\ud800", b"null", b"-1", b"1e999", b"{", b"[" * 2000)
Check = Callable[[Path], str]


def main() -> None:
    parser = options(__doc__, "fuzz_corpus.json")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = campaign(Path(folder), arguments.mutations, arguments.seed)
    result = {
        "mutations": arguments.mutations,
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - start, 1),
        "outcomes": {target: dict(sorted(some.items())) for target, some in sorted(counts.items())},
        "failures": failures,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if failures:
        raise UserError(f"{len(failures)} mutations ended badly")


def campaign(folder: Path, mutations: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes of each target, and how to repeat the failures."""
    targets = make_targets(folder)
    counts: dict[str, Counter[str]] = {name: Counter() for name in targets}
    failures: list[str] = []
    with progress("fuzzing", mutations) as bar:
        for number in range(mutations):
            name = list(targets)[number % len(targets)]
            path, check = targets[name]
            outcome = one(path, check, random.Random(f"{seed} {number}"))
            counts[name][outcome.split(":")[0]] += 1
            if outcome.startswith("BAD"):
                failures.append(f"{name}, seed {seed}, number {number}: {outcome}")
            bar.advance(1, bad=len(failures))
    return counts, failures


def one(path: Path, check: Check, chance: random.Random) -> str:
    """Damages ``path``, checks, mends it."""
    whole = path.read_bytes()
    path.write_bytes(mutated(whole, chance))
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(HANG_SECONDS)
    try:
        return check(path)
    except UserError as error:
        return "clear error" if str(error) else "BAD: an error without words"
    except Exception as error:
        return f"BAD: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        path.write_bytes(whole)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damaged in one to three places."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 8, 100, 1000))
        kind = chance.randrange(7)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + chance.randbytes(size) + data[at:]
        elif kind == 2:
            data = data[:at] + data[at + size :]
        elif kind == 3:
            data = data[:at] + bytes(size) + data[at + size :]
        elif kind == 4:
            data = data[:at] + data[at : at + size] + data[at:]
        elif kind == 5:
            data = (
                data[:at]
                + chance.choice((b"\n", b'"', b"\xff", b"\\ud800", b"null", b"-1", b"1e999"))
                + data[at:]
            )
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    return data


# ---- targets


def make_targets(folder: Path) -> dict[str, tuple[Path, Check]]:
    """Each file to damage, and how to judge what comes of it."""
    texts = [f"document {i} " * (i % 23) + "é\n" * (i % 3) for i in range(120)]
    lines = b"".join(json.dumps({"id": i, "text": text}).encode() + b"\n" for i, text in enumerate(texts))
    files = {
        "jsonl": ("l.jsonl", lines),
        "gz": ("l.jsonl.gz", gzip.compress(lines)),
        "zst": ("l.jsonl.zst", zstandard.ZstdCompressor(write_checksum=True).compress(lines)),
        "list": ("l.json", json.dumps([{"text": text} for text in texts]).encode()),
    }
    for name, data in files.values():
        (folder / name).write_bytes(data)
    pack_file(folder / "l.jsonl", folder / "c")
    corpus = folder / "c"
    original = [bytes(document) for document in documents_of(corpus)]

    def corpus_check(_: Path) -> str:
        return judge_corpus(corpus, original)

    targets: dict[str, tuple[Path, Check]] = {
        suffix: (Path(f"{corpus}.{suffix}"), corpus_check) for suffix in ("idx", "bin", "json")
    }
    targets |= {kind: (folder / name, judge_lines) for kind, (name, _) in files.items() if kind != "list"}
    targets["list"] = (folder / "l.json", judge_pack)
    targets["part"] = part_target(folder, original)
    try:
        from pyarrow import parquet, table
    except ImportError:
        return targets
    parquet.write_table(
        table({"text": texts}), folder / "l.parquet", row_group_size=50, write_page_checksum=True
    )
    targets["parquet"] = (folder / "l.parquet", judge_pack)
    return targets


def judge_corpus(corpus: Path, original: list[bytes]) -> str:
    """Right, or refused, or seen by verify."""
    problems = verify(corpus, quiet=True)
    documents = [bytes(document) for document in documents_of(corpus)]
    if b"".join(documents) != IndexedCorpus(corpus).tokens.tobytes():
        return "BAD: the documents are not the tokens"
    if problems:
        return "seen by verify"
    return "right answer" if documents == original else "BAD: verify calls other data whole"


def judge_lines(path: Path) -> str:
    """Every line is a document or a reject, and no document holds another text than its line does."""
    reference = []
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
            reference.append(text_of(line))
        if not data.endswith(b"\n"):
            reference.append(None)
    rejects = pack_file(path, path.parent / "out")
    documents = [bytes(document.astype(np.uint8)) for document in documents_of(path.parent / "out")]
    if path.suffix != ".jsonl":
        return "right answer"
    expected = [text.encode("utf-8", "replace") for text in reference if text is not None]
    if not is_subsequence(documents, expected) or len(documents) + rejects != data.count(b"\n") + (
        not data.endswith(b"\n")
    ):
        return "BAD: documents or rejects are not the file's lines"
    return "right answer"


def judge_pack(path: Path) -> str:
    pack_file(path, path.parent / "out")
    return (
        "right answer"
        if not verify(path.parent / "out", quiet=True)
        else "BAD: packed a corpus that is not whole"
    )


def part_target(folder: Path, original: list[bytes]) -> tuple[Path, Check]:
    for part in (0, 1):
        pack_file(folder / "l.jsonl", folder / "p", part=(part, 2))
    kept = folder / "kept"
    shutil.copytree(folder / "p.parts", kept)

    def check(damaged: Path) -> str:
        shutil.rmtree(folder / "p.parts", ignore_errors=True)
        shutil.copytree(kept, folder / "p.parts")
        (folder / "p.parts" / damaged.name).write_bytes(damaged.read_bytes())
        join_parts(folder / "p", max_bad=1, quiet=True)
        documents = [bytes(document) for document in documents_of(folder / "p")]
        return "right answer" if documents == original else "BAD: joined other data"

    return kept / "part-00000-of-00002.shard", check


# ---- helpers


def pack_file(path: Path, prefix: Path, part: tuple[int, int] = (0, 1)) -> int:
    """Packs, allowing any number of bad lines, and gives that number."""
    settings = PackSettings(shuffle_seed=None)
    # Foreign C++ reads parquet: in a process of its own, whose death is reported.
    workers = 1 if path.suffix == ".parquet" else 0
    request = PackRequest(
        [str(path)], prefix, "bytes", settings, workers=workers, part=part, max_bad=1.0, quiet=True
    )
    return sum(file.rejects for manifest in pack(request) for file in manifest.inputs)


def documents_of(prefix: Path) -> list[np.ndarray]:
    corpus = IndexedCorpus(prefix)
    return [corpus.document(number) for number in range(corpus.document_count)]


def text_of(line: bytes) -> str | None:
    try:
        tree = json.loads(line)
        text = tree if isinstance(tree, str) else tree["text"]
        return text if isinstance(text, str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def is_subsequence(some: list[bytes], all_of_them: list[bytes]) -> bool:
    rest = iter(all_of_them)
    return all(item in rest for item in some)


def _hang(*_: object) -> None:
    raise TimeoutError(f"it hung for {HANG_SECONDS} s")


if __name__ == "__main__":
    run_script(main)
