"""One block of each mixer, compiled and eager: the same numbers, and how long each takes, on this CPU.

    python benchmarks/mixers_compiled.py             what is not there yet; each line takes minutes, most to compile
    python benchmarks/mixers_compiled.py --report    the table of what is there

Killed, it goes on with the kernels that are compiled already; of such a line the time of compiling is not known.

R = 2,048 and C = 512, one sample, float32, forward and backward; once as one window, once as ten packed documents.
Seconds are CPU-seconds of one thread, the best of five turns, in which compiled and eager code take turns. Differences
are the norm of the difference over the norm, the largest of the block's output and of all gradients.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from options import options
from stale import mark_of

from megarc.errors import run_script
from megarc.report import table

RECENT, CAUSAL, DOCUMENTS, TURNS = 2048, 512, 10, 5
MIXERS = ("attention", "ssm", "crf", "ssm_attention")
ROWS = ("one window", "documents")
KEYS = {"layers": 1, "hidden": 128, "heads": 4, "vocabulary": 256}


def main() -> int:
    parser = options(__doc__, "mixers_compiled.json")
    parser.add_argument("--report", action="store_true", help="measures nothing")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for rows in ROWS:
        for mixer in MIXERS:
            name = f"{mixer}, {rows}"
            if not arguments.report and name not in known:
                known[name] = measured(mixer, rows)
                print(name, known[name], flush=True)
                arguments.out.write_text(json.dumps(known, indent=1) + "\n")
    report(known)
    return 0


def measured(mixer: str, rows: str) -> dict[str, float | None]:
    """CPU-seconds of both ways and of compiling, and how far apart their numbers are."""
    import torch

    from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise

    torch.set_num_threads(1)
    config = ModelConfig(mixers=mixer, **KEYS)
    models = {}
    for way in ("eager", "compiled"):
        models[way] = Transformer(config, ExecutionConfig(compile=way == "compiled"))
        initialise(models[way], config, 0)
    x = torch.randn(1, RECENT + CAUSAL, KEYS["hidden"], generator=torch.Generator().manual_seed(0))
    seen = RECENT if rows == "one window" else documents()
    best, found = dict.fromkeys(models, math.inf), {}
    cache = Path(tempfile.gettempdir()) / "megarc-compiled" / f"{mixer}-{rows}".replace(" ", "-")
    whole = not cache.exists()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    start = sum(os.times()[:4])
    found["compiled"] = numbers(models["compiled"], x, seen)
    compiling = sum(os.times()[:4]) - start
    found["eager"] = numbers(models["eager"], x, seen)
    for _ in range(TURNS):
        for way, model in models.items():
            begin = time.process_time()
            numbers(model, x, seen)
            best[way] = min(best[way], time.process_time() - begin)
    pairs = zip(found["compiled"], found["eager"], strict=True)
    apart = max(((one - other).norm() / other.norm()).item() for one, other in pairs)
    shutil.rmtree(cache, ignore_errors=True)
    return {**best, "compiling": compiling if whole else None, "apart": apart}


def numbers(model: Any, x: Any, seen: Any) -> list[Any]:
    """What the block gives, and the gradients of its input and parameters."""
    given = x.clone().requires_grad_()
    model.zero_grad()
    out = model.blocks[0](given, seen)
    (out * out).sum().backward()
    return [out.detach(), given.grad, *(one.grad.clone() for one in model.blocks[0].parameters())]


def documents() -> Any:
    """Ten documents of equal length, four fifths of each R."""
    import numpy as np
    import torch

    from megarc.attention import on_device
    from megarc.interval import Intervals

    length = (RECENT + CAUSAL) // DOCUMENTS
    number = np.repeat(np.arange(DOCUMENTS, dtype=np.int32), length)[None]
    end = (number * length + RECENT // DOCUMENTS).astype(np.int32)
    return on_device(Intervals.of(RECENT + CAUSAL, np.zeros(1, np.int32), number, end), torch.device("cpu"))


def report(known: dict[str, dict[str, Any]]) -> None:
    lines = []
    for name, one in known.items():
        (mixer, rows), spent = name.split(", "), one["compiling"]
        times = [one["eager"], one["compiled"], one["compiled"] / one["eager"]]
        cells = [f"{value:.{digits}f}" for value, digits in zip(times, (3, 3, 2), strict=True)]
        lines.append([mixer, rows, *cells, "-" if spent is None else f"{spent:.0f}", f"{one['apart']:.1e}"])
    print(mark_of("benchmarks/mixers_compiled.py"))
    columns = ["mixer", "rows", "eager, CPU-s", "compiled, CPU-s", "ratio", "compiling, CPU-s", "difference"]
    print(table(columns, lines, markdown=True))


if __name__ == "__main__":
    run_script(main)
