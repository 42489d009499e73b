"""Packing against Megatron-LM's preprocessing, on the same text with the same tokenizers.

    python benchmarks/preprocess.py                          against a stand-in (megatron_standin.py)
    python benchmarks/preprocess.py --megatron ~/Megatron-LM against its own tools
    python benchmarks/preprocess.py --memory-gigabytes 10    resident memory on a small and a big input
    python benchmarks/preprocess.py --scaling                one worker against two (a quiet machine!)

The text is Python source and documentation found on this machine. CPU-seconds are
those of the whole process tree, start-up included; "marginal" is the slope between
two sizes, so that start-up drops out. Of every tool the best of several runs counts,
and every output is compared byte for byte. A tool that takes longer than --limit is ended.

Each row is written to --out when it is measured. The same command then goes on with the rows that are missing; --rows
names the rows to measure, and --anew measures those again.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from options import options

from megarc.corpus import IndexedCorpus
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.errors import UserError, run_script

HERE = Path(__file__).parent
TOOL = HERE.parent / "data_tools" / "preprocess.py"
VOCABULARY = 32_000
END_OF_DOCUMENT = "<|endoftext|>"
SUFFIXES = (".py", ".rst", ".md", ".txt", ".pyi", ".h")
WANTED = {
    "SentencePiece BPE, fast engine": 8,
    "SentencePiece BPE with a prefix, fast engine": 6,
    "SentencePiece BPE that normalises, fast engine": 6,
    "SentencePiece BPE, plain": 1.5,
    "SentencePiece unigram": 2.5,
    "Hugging Face BPE": 50,
    "Hugging Face BPE, marginal": 2,
}


@dataclass(frozen=True)
class Cost:
    """Of one run of a tool."""

    cpu_seconds: float
    seconds: float
    peak_megabytes: float  # of its biggest process
    tokens: int

    @property
    def rate(self) -> float:
        """Thousands of tokens a CPU-second."""
        return self.tokens / self.cpu_seconds / 1e3


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        prepare(work, arguments.megabytes)
        result: dict[str, object] = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "peer": peer_name(arguments),
            "text_bytes": arguments.megabytes * 10**6,
            "load_before": round(os.getloadavg()[0], 1),
            "vocabulary": VOCABULARY,
        }
        if arguments.scaling:
            text = text_file(work, arguments.megabytes)
            result["workers_1_to_2"] = scaling(text, work, tokenizers(work)["bpe"])
        elif arguments.memory_gigabytes:
            result |= memory(work, arguments.memory_gigabytes)
        else:
            compare(work, arguments, result)
            plot(result, arguments.out.with_suffix(".png"))
    write(arguments.out, result)
    print(json.dumps(result, indent=1))


def write(path: Path, result: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def peer_name(arguments: argparse.Namespace) -> str:
    if arguments.megatron:
        return "Megatron-LM"
    if not importlib.util.find_spec("megatron"):
        return "stand-in"
    theirs = "tokenizers" if importlib.util.find_spec("transformers") else "SentencePiece tokenizer"
    return f"stand-in with megatron-core's {theirs} and builder"


# ---- measuring


REPEATS = 3  # of a tool on a text; the least CPU time counts: what disturbs only adds to it


def best(run: Callable[[], Cost]) -> Cost:
    return min((run() for _ in range(REPEATS)), key=lambda cost: cost.cpu_seconds)


TOOLS: dict[str, tuple[str, list[str]]] = {  # the tokenizer and our flags
    "SentencePiece BPE, fast engine": ("bpe", []),
    "SentencePiece BPE with a prefix, fast engine": ("prefix", []),
    "SentencePiece BPE that normalises, fast engine": ("normalising", []),
    "SentencePiece BPE, plain": ("bpe", ["--engine", "plain"]),
    "SentencePiece unigram": ("unigram", []),
    "Hugging Face BPE": ("huggingface", []),
}
MARGINAL = "Hugging Face BPE, marginal"


def compare(work: Path, arguments: argparse.Namespace, result: dict[str, object]) -> None:
    """Every tool on the same text, one after the other, so that a busy machine slows all alike.

    Rows that ``arguments.out`` has of the same text and peer are kept; each new one is written at once.
    """
    text = text_file(work, arguments.megabytes)
    models = tokenizers(work)
    rows = result["rows"] = kept_rows(arguments, result)
    for name in wanted_rows(arguments):
        if name in rows:
            continue
        load = round(os.getloadavg()[0], 1)
        if name == MARGINAL:
            small = text_file(work, arguments.megabytes // 4)
            rows[name] = marginal([small, text], work, models["huggingface"], arguments)
        else:
            kind, more = TOOLS[name]
            other = best(partial(peer, text, work, models[kind], arguments))
            rows[name] = row(name, best(partial(ours, text, work, models[kind], *more)), other)
        rows[name]["load_before"] = load
        write(arguments.out, result)


def wanted_rows(arguments: argparse.Namespace) -> list[str]:
    names = [*TOOLS, MARGINAL]
    if unknown := [name for name in arguments.rows if name not in names]:
        raise UserError(f"--rows {unknown[0]!r}: there is no such row; the rows are {', '.join(names)}")
    return arguments.rows or names


def kept_rows(arguments: argparse.Namespace, result: dict[str, object]) -> dict[str, dict[str, object]]:
    """The rows of an earlier turn that stay."""
    try:
        before = json.loads(arguments.out.read_text())
    except FileNotFoundError:
        return {}
    if any(before[name] != result[name] for name in ("peer", "text_bytes", "vocabulary")):
        return {}
    again = (arguments.rows or list(before["rows"])) if arguments.anew else []
    return {name: one for name, one in before["rows"].items() if name not in again}


def row(name: str, mine: Cost, other: Cost) -> dict[str, object]:
    return {
        "ours_ktok_per_cpu_s": round(mine.rate),
        "peer_ktok_per_cpu_s": round(other.rate),
        "ratio": round(mine.rate / other.rate, 2),
        "wanted": WANTED[name],
        "ours_peak_mb": round(mine.peak_megabytes),
        "peer_peak_mb": round(other.peak_megabytes),
    }


def ours(text: Path, work: Path, model: Path, *more: str, workers: int = 1) -> Cost:
    prefix = work / "ours"
    command = [sys.executable, str(TOOL), "--input", str(text), "--output-prefix", str(prefix)]
    command += ["--tokenizer-model", str(model), "--no-shuffle", "--workers", str(workers), *more]
    cost = timed(command, prefix)
    made = work / "theirs.model"  # of which text, by which tokenizer, and where it lies
    if made.exists():
        what, theirs = made.read_text().splitlines()
        if what == f"{model} {text}" and not filecmp.cmp(f"{theirs}.bin", f"{prefix}.bin", shallow=False):
            raise RuntimeError(f"{theirs}.bin and {prefix}.bin differ")
    return cost


def peer(text: Path, work: Path, model: Path, arguments: argparse.Namespace, *, fast: bool = False) -> Cost:
    prefix = made = work / "theirs"
    if arguments.megatron:
        command = megatrons(arguments.megatron, model, fast=fast)
        made = Path(f"{prefix}_text_document")
    else:
        command = [sys.executable, str(HERE / "megatron_standin.py"), "--tokenizer-model", str(model)]
        command += ["--fast"] if fast else []
    cost = timed([*command, "--input", str(text), "--output-prefix", str(prefix)], made, arguments.limit)
    (work / "theirs.model").write_text(f"{model} {text}\n{made}\n")
    return cost


def megatrons(checkout: Path, model: Path, *, fast: bool) -> list[str]:
    """Megatron-LM's own tool, by its documented flags; a tokenizer.json is handed over as the folder of it.

    Its fast tool packs with gigatoken, in one process.
    """
    huggingface = model.suffix == ".json"
    tool = checkout / "tools" / ("preprocess_data_fast.py" if fast else "preprocess_data.py")
    if not tool.exists():
        raise UserError(f"--megatron {checkout}: there is no {tool}; name a checkout of Megatron-LM")
    command = [sys.executable, str(tool), "--append-eod"]
    if huggingface:
        configuration = model.parent / "tokenizer_config.json"
        configuration.write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_DOCUMENT})
        )
        command += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(model.parent)]
        command += ["--tokenizer-hf-no-include-special-tokens"]
    else:
        command += ["--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", str(model)]
    return [*command, *(["--use-gigatoken"] if fast else ["--workers", "1"])]


def timed(command: list[str], prefix: Path, limit: float = 3600) -> Cost:
    """Runs a tool that writes the corpus ``prefix``; its processes are ended after ``limit`` seconds.

    Raises:
        UserError: where it fails or is ended, with the end of what it said.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # the usage of the whole tree
    timer.cancel()
    process.returncode = status
    if status or late.is_set():
        how = f"was ended after {limit:g} s (--limit)" if late.is_set() else f"failed ({status})"
        raise UserError(f"{' '.join(command)} {how}; the end of what it said:\n{said[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    tokens = len(IndexedCorpus(prefix).tokens)
    cost = Cost(cpu, time.monotonic() - start, usage.ru_maxrss / 1024, tokens)
    print(
        f"{Path(command[1]).name} {cost.rate:.0f} ktok/CPU-s, {cost.peak_megabytes:.0f} MB", file=sys.stderr
    )
    return cost


def marginal(sizes: list[Path], work: Path, model: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """The slope between two sizes, against the peer's fast tool."""
    mine = [best(partial(ours, text, work, model)) for text in sizes]
    other = [best(partial(peer, text, work, model, arguments, fast=True)) for text in sizes]
    slopes = [(b.tokens - a.tokens) / (b.cpu_seconds - a.cpu_seconds) / 1e3 for a, b in (mine, other)]
    return {
        "ours_ktok_per_cpu_s": round(slopes[0]),
        "peer_ktok_per_cpu_s": round(slopes[1]),
        "ratio": round(slopes[0] / slopes[1], 2),
        "wanted": WANTED[MARGINAL],
        "ours_peak_mb": round(mine[1].peak_megabytes),
        "peer_peak_mb": round(other[1].peak_megabytes),
    }


def scaling(text: Path, work: Path, model: Path) -> dict[str, object]:
    """Wall-clock of one worker over that of two, the best of three each. It takes a quiet machine."""
    load = os.getloadavg()[0]
    best = {
        workers: min(ours(text, work, model, "--engine", "plain", workers=workers).seconds for _ in range(3))
        for workers in (1, 2)
    }
    ratio = round(best[1] / best[2], 2)
    return {"load_before": load, "seconds_1": best[1], "seconds_2": best[2], "ratio": ratio, "wanted": 1.8}


def memory(work: Path, gigabytes: float) -> dict[str, object]:
    """Peak resident memory of the biggest process, on 100 MB and on many gigabytes."""
    models = tokenizers(work)
    small = text_file(work, 100)
    big = work / "big.jsonl"
    with big.open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            with small.open("rb") as part:
                shutil.copyfileobj(part, file)
    found = {}
    for name, model, more in (
        ("SentencePiece BPE, fast engine", models["bpe"], []),
        ("SentencePiece unigram", models["unigram"], []),
        ("SentencePiece BPE, shuffled", models["bpe"], ["--shuffle-seed", "1"]),
    ):
        for text in (small, big):
            cost = ours(text, work, model, *more)
            found[f"{name}, {text.stat().st_size / 1e9:.1f} GB"] = {
                "peak_mb": round(cost.peak_megabytes),
                "ktok_per_cpu_s": round(cost.rate),
            }
    return {"memory": found, "wanted_mb": 150}


# ---- text and tokenizers


def text_file(work: Path, megabytes: int) -> Path:
    """JSON lines of so many megabytes of text."""
    path = work / f"text-{megabytes}.jsonl"
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            left = megabytes * 10**6
            for text in texts():
                file.write(json.dumps({"text": text}) + "\n")
                left -= len(text)
                if left < 0:
                    break
            else:
                raise RuntimeError(f"this machine has no {megabytes} MB of such text")
    return path


def texts() -> Iterator[str]:
    """Source files of this Python and its packages, each once."""
    seen: set[int] = set()
    for root in dict.fromkeys(Path(path) for path in sys.path if path and Path(path).is_dir()):
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                try:
                    text = path.read_text(encoding="utf-8")
                except (UnicodeDecodeError, OSError):
                    continue
                if text and hash(text) not in seen and len(text) < 10**6:
                    seen.add(hash(text))
                    yield text


def prepare(work: Path, megabytes: int) -> None:
    """Makes texts and tokenizers in another process: a child's peak memory begins with its parent's."""
    made = multiprocessing.get_context("spawn").Process(target=_prepare, args=(work, megabytes))
    made.start()
    made.join()
    if made.exitcode:
        raise RuntimeError("text or tokenizers could not be made")


def _prepare(work: Path, megabytes: int) -> None:
    for size in (megabytes, megabytes // 4, 100):
        text_file(work, size)
    tokenizers(work)


def tokenizers(work: Path) -> dict[str, Path]:
    """A SentencePiece BPE and unigram model and a Hugging Face BPE, trained on a part of the text."""
    found = {
        "bpe": work / "bpe.model",
        "prefix": work / "prefix.model",
        "normalising": work / "normalising.model",
        "unigram": work / "unigram.model",
        "huggingface": work / "huggingface" / "tokenizer.json",  # alone: its folder is what Megatron takes
    }
    if all(path.exists() for path in found.values()):
        return found
    sample = [json.loads(line)["text"] for line in text_file(work, 25).open(encoding="utf-8")]
    for algorithm in ("bpe", "unigram"):
        if not found[algorithm].exists():
            train_tokenizer(sample, work / algorithm, VOCABULARY, algorithm=algorithm)
    keep = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    for name, settings in (("prefix", keep), ("normalising", {})):
        found[name].write_bytes(with_normalizer(found["bpe"].read_bytes(), sample[:20], settings))
    if not found["huggingface"].exists():
        import tokenizers as library

        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END_OF_DOCUMENT],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(sample, trainer)
        found["huggingface"].parent.mkdir(exist_ok=True)
        tokenizer.save(str(found["huggingface"]))
    return found


def with_normalizer(model: bytes, sample: list[str], settings: dict[str, object]) -> bytes:
    """The pieces of ``model`` behind the normaliser that SentencePiece's trainer gives a model by ``settings``."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as parts

    small = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("".join(sample).splitlines()), model_writer=small, model_type="bpe",
        vocab_size=1000, byte_fallback=True, hard_vocab_limit=False, minloglevel=2, **settings,
    )  # fmt: skip
    changed = parts.ModelProto.FromString(model)
    changed.normalizer_spec.CopyFrom(parts.ModelProto.FromString(small.getvalue()).normalizer_spec)
    return bytes(changed.SerializeToString())


def plot(result: dict[str, object], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = result["rows"]
    assert isinstance(rows, dict)
    names = list(rows)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    for shift, side, label in ((0.2, "ours", "megarc"), (-0.2, "peer", str(result["peer"]))):
        values = [rows[name][f"{side}_ktok_per_cpu_s"] for name in names]
        axes.barh([i + shift for i in range(len(names))], values, 0.4, label=label)
    for i, name in enumerate(names):
        text = f"  {rows[name]['ratio']:g} x (wanted {rows[name]['wanted']:g})"
        axes.text(rows[name]["ours_ktok_per_cpu_s"], i + 0.2, text, va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="thousand tokens a CPU-second", xlim=(50, 200_000))
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--megabytes", type=int, default=160, help="of text (160)")
    parser.add_argument("--megatron", type=Path, help="a checkout of Megatron-LM, to time its own tools")
    parser.add_argument(
        "--memory-gigabytes", type=float, default=0, help="measure memory alone, up to this size"
    )
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these, by name (all)")
    parser.add_argument("--anew", action="store_true", help="measure rows again that --out has already")
    parser.add_argument("--scaling", action="store_true", help="one worker against two alone")
    parser.add_argument(
        "--limit",
        type=float,
        default=1800,
        metavar="S",
        help="seconds that a tool of the peer may take (1800)",
    )
    parser.add_argument("--work", type=Path, help="a folder that keeps text and tokenizers for the next time")
    parser.add_argument("--out", type=Path, help="(benchmarks/results/preprocess*.json)")
    arguments = parser.parse_args()
    kind = "_scaling" if arguments.scaling else "_memory" if arguments.memory_gigabytes else ""
    arguments.out = arguments.out or HERE / "results" / f"preprocess{kind}.json"
    return arguments


if __name__ == "__main__":
    run_script(main)
