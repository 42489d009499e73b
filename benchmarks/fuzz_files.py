"""Reads files that somebody made to do harm: hostfiles, tasks, stacks of tiers, checkpoints, models of others.

    python benchmarks/fuzz_files.py                      3,000 files; 2 minutes of one core

A checkpoint's JSON and the headers of safetensors are changed where it hurts (paths that lead outside, counts beyond
all memory, other types, fragments twice), and its digests and checksum are made to fit, as an attacker would do. Each
file must end in a model, or whatever it holds, or in words. Failures are: a traceback, 20 seconds without an end, 2 GiB
more memory, a file opened outside of the folder (a FIFO lies there, and opening it hangs), a program started or an
object unpickled. Written to benchmarks/results/fuzz_files.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz_configs import BASE, MEMORY, hang_after, memory  # noqa: E402
from fuzz_corpus import mutated  # noqa: E402
from fuzz_values import Tree  # noqa: E402
from options import options  # noqa: E402
from support.small_run import make_run  # noqa: E402

from megarc.config import load, to_dict  # noqa: E402
from megarc.corpus import load_tokenizer  # noqa: E402
from megarc.data import read_task  # noqa: E402
from megarc.errors import UserError, run_script  # noqa: E402
from megarc.inference.huggingface import read_config, read_weights  # noqa: E402
from megarc.parallel.hostfile import read_hostfile  # noqa: E402
from megarc.progress import progress  # noqa: E402
from megarc.report import table  # noqa: E402
from megarc.tiers import StackConfig, StackPlan  # noqa: E402
from megarc.train import load_model  # noqa: E402

_NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "marshal.loads")


class Target(NamedTuple):
    """A file, how it is changed, and who reads it."""

    path: Path
    change: Callable[[bytes, random.Random], bytes]
    read: Callable[[], object]


class Watch:
    """What this process does while a file is read."""

    def __init__(self) -> None:
        self.on, self.seen = False, ""
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in _NEVER and not self.seen:
            self.seen = f"{event} {arguments!r:.100}"


def main() -> int:
    parser = options(__doc__, "fuzz_files.json")
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="a small run's folder; by default one is trained")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run or make_run(Path(scratch))
        outcomes, failures = campaign(Path(scratch), run, arguments.files, arguments.seed)
    result = {
        "command": f"python benchmarks/fuzz_files.py --files {arguments.files} --seed {arguments.seed}",
        "files": arguments.files,
        "seconds": round(time.monotonic() - started),
        "outcomes": {name: dict(some) for name, some in outcomes.items()},
        "failures": failures,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    names = sorted({name for some in outcomes.values() for name in some})
    print(
        table(["file", *names], [[kind, *(some[name] for name in names)] for kind, some in outcomes.items()])
    )
    if failures:
        raise UserError(f"{len(failures)} files ended badly:\n       " + "\n       ".join(failures[:20]))
    return 0


def campaign(scratch: Path, run: Path, files: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by target, and what failed."""
    targets, watch = make_targets(scratch, run), Watch()
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in targets}
    failures = []
    for target in targets.values():
        target.read()  # as it is, each is whole
    resource.setrlimit(resource.RLIMIT_AS, (memory() + MEMORY // 2, resource.RLIM_INFINITY))
    with progress("files", files) as bar:
        for number in range(files):
            name = list(targets)[number % len(targets)]
            outcome = one(targets[name], random.Random(f"{seed} {number}"), watch)
            outcomes[name][outcome.split(":")[0]] += 1
            if outcome.startswith("BAD"):
                failures.append(f"{name}, seed {seed}, number {number}: {outcome}")
            bar.advance(1, bad=len(failures))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return outcomes, failures


def one(target: Target, chance: random.Random, watch: Watch) -> str:
    """Changes the file, has it read, puts all back."""
    beside = {path: path.read_bytes() for path in target.path.parent.iterdir() if path.is_file()}
    target.path.write_bytes(target.change(beside[target.path], chance))
    seal(target.path.parent)
    watch.seen, watch.on = "", True
    try:
        with hang_after():
            target.read()
        outcome = "read"
    except UserError as error:
        outcome = "refused" if str(error) else "BAD: an error without words"
    except Exception as error:
        outcome = f"BAD: {type(error).__name__}: {str(error)[:300]}"
    watch.on = False
    for path, content in beside.items():
        path.write_bytes(content)
    return f"BAD: {watch.seen}" if watch.seen else outcome


# ---- changes


def in_json(outside: Path) -> Callable[[bytes, random.Random], bytes]:
    """One to three places of a JSON tree become something else, or go."""
    nasty = [
        None, True, -1, 0, 1, 2, 3.5, 1e308, 2**31, 2**62, 2**64, "", "x", "../outside", str(outside), "/etc/passwd",
        "rank-00000.json", "rank-99999.safetensors", "a/b", "\0", "é" * 1000, [], {}, [[]], [1, 2], [2**40, 2**40],
        {"a": 1}, [0, 1, 0, 1], [0, 2**40, 0, 2**20], [-1, 5, 0, 8], ["F32"], {"__class__": "os.system"},
    ]  # fmt: skip

    def change(content: bytes, chance: random.Random) -> bytes:
        tree = json.loads(content)
        for _ in range(chance.choice((1, 1, 2, 3))):
            holder, key = chance.choice(list(_places(tree)))
            act = chance.randrange(8)
            if act == 0:
                del holder[key]
            elif act == 1 and isinstance(holder, list):
                holder.insert(key, holder[key])
            elif act == 1:
                holder[chance.choice(("x", "../x", "__proto__", "rank-00001.json"))] = holder[key]
            else:
                holder[key] = deepcopy(chance.choice(nasty))
            if not tree:
                break
        return json.dumps(tree).encode()

    return change


def in_header(outside: Path) -> Callable[[bytes, random.Random], bytes]:
    """The JSON header of a safetensors file, or the bytes of its length."""
    change_json = in_json(outside)

    def change(content: bytes, chance: random.Random) -> bytes:
        size = struct.unpack("<Q", content[:8])[0]
        act = chance.randrange(6)
        if act == 0:
            return (
                struct.pack("<Q", chance.choice((0, 1, size - 1, size + 8, 1 << 40, (1 << 64) - 1)))
                + content[8:]
            )
        if act == 1:
            return mutated(content, chance)
        header = change_json(content[8 : 8 + size], chance)
        return struct.pack("<Q", len(header)) + header + content[8 + size :]

    return change


def _places(tree: Any) -> Any:
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list) and value:
            yield from _places(value)


def seal(folder: Path) -> None:
    """Digests and checksum of a checkpoint, made to fit what lies there."""
    manifest = folder / "manifest.json"
    with suppress(OSError, ValueError, TypeError):  # no manifest, or none that a reader takes
        tree = json.loads(manifest.read_bytes())
        with suppress(KeyError, AttributeError, TypeError, ValueError):
            for name, facts in tree["files"].items():
                if Path(name).name == name and (folder / name).is_file():
                    content = (folder / name).read_bytes()
                    facts |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        tree.pop("checksum", None)
        tree["checksum"] = hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()
        manifest.write_bytes(orjson.dumps(tree))


# ---- targets


def make_targets(scratch: Path, run: Path) -> dict[str, Target]:
    """Each file with who reads it; a FIFO lies where paths lead that leave the folder."""
    step = next((run / "checkpoints").glob("step-*"))
    outside = step.parent / "outside"
    outside.unlink(missing_ok=True)
    os.mkfifo(outside)
    tree, header = in_json(outside), in_header(outside)

    def model() -> object:
        return load_model(step)

    targets = {
        "manifest": Target(step / "manifest.json", tree, model),
        "rank's JSON": Target(step / "rank-00000.json", tree, model),
        "rank's tensors": Target(step / "rank-00000.safetensors", header, model),
    }
    texts = scratch / "texts"
    texts.mkdir()
    hosts, task = texts / "hosts", texts / "task.jsonl"
    hosts.write_text("# two\nnode-1 slots=8\nnode-2 slots=8 max_slots=8\n")
    lines = [
        {"prompt": "1+1=", "choices": ["2", "3"], "answer": 0},
        {"prompt": "2+2=", "choices": ["4", "x"], "answer": 0},
    ]
    task.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = load_tokenizer(Path("bytes"))
    targets |= {
        "hostfile": Target(hosts, mutated, lambda: read_hostfile(hosts)),
        "task": Target(task, _in_lines(tree), lambda: read_task(task, tokenizer)),
        "stack": _stack_target(scratch),
        **_foreign(scratch, run, tree, header),
    }
    return targets


def _in_lines(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    def lines_changed(content: bytes, chance: random.Random) -> bytes:
        if chance.random() < 0.5:
            return mutated(content, chance)
        lines = content.splitlines()
        place = chance.randrange(len(lines))
        lines[place] = change(lines[place], chance)
        return b"\n".join(lines)

    return lines_changed


def _stack_target(scratch: Path) -> Target:
    folder = scratch / "stack"
    folder.mkdir()
    path = folder / "stack.yaml"
    low, high, heldout = (
        {"kind": "corpus", "path": "sums", "part": part} for part in ([0, 0.3], [0.3, 0.6], [0.6, 1])
    )
    base = {
        "folder": str(folder / "made"),
        "run": {key: BASE[key] for key in ("length", "model", "batch")}
        | {"window": {"recent": 24, "causal": 16}},
        "heldout": heldout,
        "tiers": {"low": {"data": low, "writes": {"samples": 1, "tokens": 4}}, "high": {"data": high}},
    }
    path.write_text(yaml.safe_dump(base))
    keys = Tree(StackConfig, base)

    def read() -> object:
        return [to_dict(stage.config) for stage in StackPlan(load(StackConfig, path)).stages()]

    return Target(path, lambda _, chance: keys.mutant(chance).text, read)


def _foreign(scratch: Path, run: Path, tree: Any, header: Any) -> dict[str, Target]:
    """A folder in Hugging Face's layout, exported from the run, in several files."""
    from support.small_run import page

    folder = scratch / "exported"
    page("launch/export.py", "--run", run, "--to", folder, "--layout", "huggingface", "--shard", "0.00004")

    config = folder / "config.json"
    facts = json.loads(config.read_bytes())
    for key in ("recent", "causal", "stride", "prefix_lm", "auto_map", "megarc"):
        del facts[key]  # what is left is a model of Llama's family
    config.write_text(json.dumps(facts))

    def read() -> object:
        return [values.view(shape) for _, shape, values in read_weights(folder, read_config(folder))]

    first = min(folder.glob("model-*.safetensors"))
    return {
        "config.json": Target(config, tree, read),
        "index": Target(folder / "model.safetensors.index.json", tree, read),
        "model's tensors": Target(first, header, read),
    }


if __name__ == "__main__":
    run_script(main)
