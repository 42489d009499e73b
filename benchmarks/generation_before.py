"""Generation and roll-outs against an older commit's own code, which runs in a worktree beside this one.

    git worktree add ../before 9d81290
    python benchmarks/generation_before.py --before ../before    (the demo's text is needed)

Each arm is a process of its own, in turn, several rounds; seconds are CPU time, the best of them.

texts       what ``launch/generate.py`` of each commit calls, without its start: the old one answers one prompt at a
            time; 10M parameters (configs/models/10M.yaml), greedy, no stop, window of 256 rows
roll-outs   the command ``launch/rollouts.py`` of each commit, on the bottom tier of configs/tiers/two.yaml (after one
            step); its start, which the same command shows when all is there already, is taken off in the second figure
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from options import options

from megarc.errors import run_script
from megarc.report import table

ROOT = Path(__file__).resolve().parents[1]
TEXTS = """
import sys, time, torch
from pathlib import Path
from megarc.config import load
from megarc.inference import Sampling
from megarc.model import Transformer, initialise
from megarc.train import RunConfig
from megarc.window import Window

new, count, tokens = sys.argv[1] == "now", int(sys.argv[2]), int(sys.argv[3])
config = load(RunConfig, Path("configs/models/10M.yaml"), ["model.vocabulary=8192"]).model
config = config.model_copy(update={"initial_std": 0.1})
model = Transformer(config)
initialise(model, config, 1)
model.eval()
generator = torch.Generator().manual_seed(0)
lengths = torch.randint(8, 121, (64,), generator=generator).tolist()
prompts = [torch.randint(1, 8192, (length,), generator=generator).tolist() for length in lengths][:count]
window, greedy = Window.plain(256), Sampling(temperature=0)
begun = time.process_time()
if new:
    from megarc.inference import Writing, write
    texts = [Writing(ids, tokens, number) for number, ids in enumerate(prompts)]
    list(write(model, iter(texts), window, greedy))
    found = [text.new for text in texts]
else:
    from megarc.inference import generate
    found = [generate(model, torch.tensor([ids]), window, tokens, greedy)[0, len(ids):].tolist() for ids in prompts]
print(time.process_time() - begun)
print(found)
"""


def main() -> int:
    parser = options(__doc__, "generation_before.json")
    parser.add_argument("--before", type=Path, required=True, help="a worktree of the older commit")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument(
        "--slow", type=int, default=4, help="prompts that the older commit answers: the first"
    )
    parser.add_argument("--windows", type=int, default=4800, help="boundaries at which roll-outs are made")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "now": ROOT}
    found = {"texts": texts(trees, arguments)}
    with tempfile.TemporaryDirectory() as folder:
        found["rollouts"] = rollouts(trees, arguments, Path(folder))
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    rows = [[name, *map(round, pair.values()), f"{pair['now'] / pair['before']:.2f}"]
            for name, pair in (("texts", found["texts"]), *found["rollouts"].items())]  # fmt: skip
    print(table(["tokens/CPU-s", "before", "now", "ratio"], rows))
    return 0


def texts(trees, arguments) -> dict:
    """Tokens a CPU second of each commit; their texts are equal."""
    best, made = {}, {}
    for _ in range(arguments.repeats):
        for name, tree in trees.items():
            count = 64 if name == "now" else arguments.slow
            shown = run(tree, "-c", TEXTS, name, count, arguments.tokens).splitlines()
            rate = count * arguments.tokens / float(shown[0])
            best[name], made[name] = max(rate, best.get(name, 0.0)), json.loads(shown[1])
            print(f"texts, {name}: {rate:.0f} tokens/CPU-s", file=sys.stderr, flush=True)
    assert made["now"][: arguments.slow] == made["before"], "the texts differ"
    return best


def rollouts(trees, arguments, folder: Path) -> dict:
    """The same of roll-outs, with the command's start and without it."""
    # The older commit makes the run, so that both read it.
    keys = ["window.recent=0", "window.causal=128", "window.stride=128", "model.layers=2", "model.hidden=64",
            "model.heads=4", "batch.size=16", "length=1 steps", "validation.windows=16", "logging.tensorboard=false",
            f"data.train={ROOT}/demo/text/train", f"data.valid={ROOT}/demo/text/heldout", "device=cpu"]  # fmt: skip
    run(trees["before"], "launch/pretrain.py", f"folder={folder / 'run'}", *keys)
    job = {
        "writer": str(folder / "run"),
        "of": {"path": f"{ROOT}/demo/text/train", "part": [0.5, 1.0], "windows": arguments.windows},
        "window": {"recent": 96, "causal": 32, "stride": 32},
        "writes": {"samples": 2, "tokens": 16, "batch": 256},
        "device": "cpu",
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    best, count = {}, arguments.windows * 32
    for turn in range(arguments.repeats):
        for name, tree in trees.items():
            words = ("launch/rollouts.py", "--config", folder / "job.yaml", f"to={folder}/{name}{turn}")
            (whole, _), (start, _) = (cpu_of(lambda t=tree, w=words: run(t, *w)) for _ in range(2))
            print(f"roll-outs, {name}: {whole:.1f} s, start {start:.1f} s", file=sys.stderr, flush=True)
            for what, seconds in (("roll-outs", whole - start), ("roll-outs, with the start", whole)):
                rates = best.setdefault(what, dict.fromkeys(trees, 0.0))
                rates[name] = max(rates[name], count / seconds)
    files = [(folder / f"{name}0.bin").read_bytes() for name in trees]
    same = sum(a == b for a, b in zip(*files, strict=True)) / len(files[0])
    assert same > 0.99, f"only {same:.3f} of the bytes are those of before"
    return best


def cpu_of(action) -> tuple[float, object]:
    """CPU seconds of the processes that ``action`` runs, and what it gives."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, given


def run(tree: Path, *words) -> str:
    """A command of that tree; what it prints."""
    there = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=tree, env=there, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {words[0]} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    run_script(main)
