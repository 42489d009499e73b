"""Held-out evaluation of a small model: micro-batches together in one pass, the last block on loss rows alone.

The other way is one micro-batch after the other, with all rows.

    python benchmarks/heldout.py             configs/models/1M.yaml, r = c = 64, one process on a CPU

All score the same windows with the same engine, in turn. Time is CPU time on one compute thread, the best of the
rounds. Written to benchmarks/results/heldout.json.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from options import options
from step import Noise

from megarc.config import load
from megarc.data import open_stream
from megarc.errors import run_script
from megarc.model import Transformer
from megarc.parallel import Groups, connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.report import table
from megarc.train import RunConfig, build_engine, open_train, resolve
from megarc.train.metrics import heldout_loss
from megarc.train.metrics.heldout_loss import heldout_losses

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"noise": Noise}


def main() -> int:
    parser = options(__doc__, "heldout.json")
    parser.add_argument("--windows", type=int, default=64, help="that are scored (64)")
    parser.add_argument("--rounds", type=int, default=5, help="of both (5)")
    parser.add_argument(
        "--micro", type=int, nargs="*", default=[1, 2, 4, 8], help="samples of a micro-batch (1 2 4 8)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    groups = connect(meet(ALONE), "cpu")
    rows = [compared(micro, arguments.windows, arguments.rounds, groups) for micro in arguments.micro]
    disconnect()
    facts = {"rows": rows, "windows": arguments.windows, "rounds": arguments.rounds}
    facts |= {"torch": torch.__version__, "python": platform.python_version()}
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n")
    print(table(list(rows[0]), [[f"{value:.4g}" for value in row.values()] for row in rows]))
    return 0


def compared(micro: int, windows: int, rounds: int, groups: Groups) -> dict[str, float]:
    """Milliseconds of CPU time a window, either way."""
    with tempfile.TemporaryDirectory() as scratch:
        config = load(RunConfig, ROOT / "configs/models/1M.yaml", [
            "window.recent=64", "window.causal=64", "data.train=[{kind: noise}]", "data.valid=[{kind: noise}]",
            "model.vocabulary=8192", f"batch.size={micro}", f"batch.micro={micro}", f"folder={scratch}",
            "length=2 steps",
        ])  # fmt: skip
        config = resolve(config, open_train(config, KINDS), groups.topology)
        stream = open_stream(config.data, "valid", config.window.build(), config.seed, makers=KINDS)
        engine = build_engine(config, groups)
        best: dict[str, float] = {}
        losses = {}
        for _ in range(rounds):
            for name, way in WAYS.items():
                with way():
                    begun = time.process_time()
                    (losses[name],) = heldout_losses(engine, stream, windows)
                    best[name] = min(best.get(name, float("inf")), time.process_time() - begun)
        engine.close()
    assert all(abs(one.nll / losses["ours"].nll - 1) < 1e-6 for one in losses.values())
    found: dict[str, float] = {"micro-batch": micro}
    found |= {f"{name}, ms": 1e3 * seconds / windows for name, seconds in best.items()}
    return found | {"times as fast": best["one by one, all rows"] / best["ours"]}


@contextmanager
def changed(*changes: tuple[object, str, object]) -> Iterator[None]:
    """Sets attributes for a while."""
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    yield
    for place, name, value in before:
        setattr(place, name, value)


ONE_BY_ONE = heldout_loss, "_ROWS", 1
ALL_ROWS = Transformer, "_scores_alone", lambda model, seen: False
WAYS = {
    "ours": changed,
    "together, all rows": partial(changed, ALL_ROWS),
    "one by one, all rows": partial(changed, ONE_BY_ONE, ALL_ROWS),
}


if __name__ == "__main__":
    run_script(main)
