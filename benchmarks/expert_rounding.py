"""How many rows go to other experts because another layout of ranks rounds otherwise: the same weights and tokens.

    python benchmarks/expert_rounding.py             8 experts of which 2 are active, 4 layers; under a minute
    python benchmarks/expert_rounding.py --windows 1 --hidden 64      a toy

Two processes run a model forward as two tensor ranks, as two context ranks, and each alone, in fp32 and in bf16. A row
counts where its set of experts is not the one that it has on one rank. Initial values are the usual ones, for which
scores of experts lie close together. A row's experts in layer 1 differ by rounding in that layer alone; differences of
later layers include what earlier ones hand on. Printed and written to benchmarks/results/expert_rounding.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import torch
from options import options
from stale import mark_of

from megarc.errors import run_script
from megarc.inference.own_rows import own_rows
from megarc.model import ModelConfig, Router, Transformer, initialise
from megarc.parallel import Groups, TensorParallel, all_reduce_sum, connect, disconnect, meet
from megarc.rank_environment import free_port, read_rank_environment
from megarc.report import table
from megarc.window import Window

_RANK = "MEGARC_ROUNDING_BENCHMARK"  # the arguments of a rank, in its environment
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> int:
    if _RANK in os.environ:
        return rank(json.loads(os.environ[_RANK]))
    parser = options(__doc__, "expert_rounding.json")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model (256)")
    parser.add_argument("--windows", type=int, default=8, help="of 512 rows (8)")
    parser.add_argument("--seeds", type=int, default=3, help="models (3)")
    arguments = parser.parse_args()
    facts = {"hidden": arguments.hidden, "windows": arguments.windows, "seeds": arguments.seeds}
    found = started(facts)
    arguments.out.write_text(
        json.dumps({**facts, "torch": torch.__version__, "shares": found}, indent=1) + "\n"
    )
    layers = range(1, len(next(iter(found.values()))) + 1)
    rows = [[*name.split(", "), *(f"{share:.2%}" for share in shares)] for name, shares in found.items()]
    print(mark_of("benchmarks/expert_rounding.py"))
    print()
    print(table(["precision", "layout", *(f"layer {layer}" for layer in layers)], rows, markdown=True))
    return 0


def started(facts: dict[str, Any]) -> dict[str, list[float]]:
    """What rank 0 of two finds."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **place, "RANK": str(number), "LOCAL_RANK": str(number), "OMP_NUM_THREADS": "1",
                 _RANK: json.dumps(facts)},
            stdout=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        sys.exit("a rank failed")
    shares: dict[str, list[float]] = json.loads(said[0].splitlines()[-1])
    return shares


def rank(facts: dict[str, Any]) -> int:
    """Of each precision and layout, the share of rows with other experts, by layer."""
    torch.set_num_threads(1)
    meeting = meet(read_rank_environment())
    layouts = {"tensor 2": connect(meeting, "cpu", tensor=2), "context 2": connect(meeting, "cpu", context=2)}
    found: dict[str, list[list[float]]] = {}
    for seed in range(facts["seeds"]):
        config = ModelConfig(
            layers=4, hidden=facts["hidden"], heads=4, ffn=4 * facts["hidden"], vocabulary=256,
            experts={"count": 8, "active": 2},
        )  # fmt: skip
        tokens = np.random.default_rng(seed).integers(0, 256, (facts["windows"], 512))
        for precision, dtype in PRECISIONS.items():
            alone = chosen(config, seed, dtype, tokens, None)
            for layout, groups in layouts.items():
                others = (chosen(config, seed, dtype, tokens, groups) != alone).any(-1)  # [layers, rows]
                found.setdefault(f"{precision}, {layout}", []).append(others.float().mean(1).tolist())
    if layouts["tensor 2"].first:
        print(json.dumps({name: np.mean(shares, 0).tolist() for name, shares in found.items()}))
    disconnect()
    return 0


@torch.inference_mode()
def chosen(
    config: ModelConfig, seed: int, dtype: torch.dtype, tokens: np.ndarray, groups: Groups | None
) -> torch.Tensor:
    """The experts of each row, ascending: [layers, windows * rows, active]."""
    model = Transformer(config, tensor=None if groups is None else TensorParallel.of(groups))
    initialise(model, config, seed)
    model.to(dtype).eval()
    seen: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, Router):
            module.register_forward_hook(lambda _, __, routes: seen.append(routes.chosen.sort(-1).values))
    windows, rows = tokens.shape
    window = Window.split(rows // 2, rows // 2)
    if groups is None or groups.context.size == 1:
        model.hidden(torch.as_tensor(tokens), window.recent)
        return torch.stack(seen)
    own = own_rows(window.recent, rows, windows, groups.context, torch.device("cpu"))
    model.hidden(own.of(tokens), own.seen, positions=own.positions(windows))
    part = torch.stack(seen).unflatten(1, (windows, -1))
    whole = torch.zeros(len(part), windows, rows, part.shape[-1], dtype=torch.long)
    whole[:, :, torch.as_tensor(own.numbers)] = part
    return all_reduce_sum(whole, groups.context).flatten(1, 2)


if __name__ == "__main__":
    run_script(main)
