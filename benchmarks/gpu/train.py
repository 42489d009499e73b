"""Training steps on one GPU, offline on a bare machine: speed, MFU, memory, against a bare loop and transformers.

    python benchmarks/gpu/train.py                        124M, 350M, 760M, 1.3B; about 12 minutes on an H100
    python benchmarks/gpu/train.py --fp8 --profile        the blocks' products in fp8 too; a table and a trace
    python benchmarks/gpu/train.py --device cpu --toy     a few tiny steps on the CPU, to see that it runs

bf16, compiled, r = c = 512 and 1024, batches of random tokens. Ours: the engine's whole step (DeepSpeed, ZeRO 1,
clipping). Bare: the same model in a loop of a few lines. transformers, where installed: a Llama of the same shape under
the same mask. MFU counts the exact mask over the card's dense bf16 peak. Written to
benchmarks/results/gpu-train.json with the device's name.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from options import gpu_options, need_gpu  # noqa: E402

from megarc.config import load  # noqa: E402
from megarc.model import Transformer, cost_of, initialise  # noqa: E402
from megarc.parallel import connect, disconnect, meet  # noqa: E402
from megarc.plan import predict  # noqa: E402
from megarc.rank_environment import ALONE  # noqa: E402
from megarc.train import MicroBatch, RunConfig, build_engine, dtype_of  # noqa: E402
from megarc.train.engine.optimizer import adamw  # noqa: E402
from megarc.train.metrics.device_limits import peak_flops  # noqa: E402

MICRO = {"124M": 32, "350M": 16, "1.3B": 8, "1M": 2}
TARGET = 0.55  # MFU, exact mask, 1.3B on one H100 or H200


def main() -> None:
    parser = gpu_options(__doc__, "gpu-train.json", toy="the 1M preset, a few rows, fp32, eager")
    parser.add_argument("--models", nargs="+", default=["124M", "350M", "760M", "1.3B"])
    parser.add_argument("--fp8", action="store_true", help="time fp8 products too")
    parser.add_argument("--profile", action="store_true", help="table and trace of the last shape's step")
    arguments = parser.parse_args()
    need_gpu(arguments.device)
    groups = connect(meet(ALONE), arguments.device)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    report = {"device": name, "torch": torch.__version__, "target_mfu": TARGET, "rows": []}
    for model in ["1M"] if arguments.toy else arguments.models:
        for half in (16,) if arguments.toy else (512, 1024):
            report["rows"] += shape(model, half, groups, arguments)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    disconnect()
    print(json.dumps(report, indent=1))


def shape(model: str, half: int, groups, arguments) -> list[dict]:
    """All peers on one shape; one that fails tells why and costs nobody else his row."""
    peers: dict[str, Callable] = {"ours": ours, "bare": bare, "transformers": transformers}
    rows = []
    for peer, make in peers.items():
        for scales in (None, "tensor", "row") if arguments.fp8 and peer == "ours" else (None,):
            config = configured(model, half, scales, arguments)
            name = f"{peer}, fp8 with a scale a {scales}" if scales else peer
            row = {"model": model, "recent": half, "causal": half, "who": name}
            try:
                step, close = make(config, groups)
                row |= timed(step, config, groups, arguments)
                if arguments.profile and peer == "ours":
                    row["profile"] = profiled(step, arguments)
                close()
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {error}"[:200]
            rows.append(row)
    return rows


def configured(model: str, half: int, scales: str | None, arguments) -> RunConfig:
    micro = max(1, MICRO.get(model, 8) * 512 // half) if not arguments.toy else 2
    keys = [
        f"window.recent={half}", f"window.causal={half}", "model.vocabulary=50257", f"batch.size={micro}",
        f"batch.micro={micro}", f"device={arguments.device}", "optimizer.lr=1e-4",
        *(["model.vocabulary=512"] if arguments.toy else ["precision=bf16", "execution.compile=true"]),
        *(["execution.fp8=true", f"execution.fp8_scales={scales}"] if scales else []),
    ]  # fmt: skip
    return load(RunConfig, ROOT / "configs" / "models" / f"{model}.yaml", keys)


def batch(config: RunConfig, device: torch.device) -> torch.Tensor:
    shape = (config.batch.micro_batch, config.window.build().tokens)
    return torch.randint(0, config.model.tokens, shape, device=device)


def ours(config: RunConfig, groups) -> tuple[Callable, Callable]:
    engine = build_engine(config, groups)
    tokens = batch(config, groups.device)
    micro = MicroBatch(tokens, config.window.recent, None, samples=torch.arange(len(tokens)).numpy())
    return lambda: engine.step([micro], 1e-4), engine.close


def bare(config: RunConfig, groups) -> tuple[Callable, Callable]:
    model = Transformer(config.model, config.execution)
    initialise(model, config.model, 0)
    model = model.to(groups.device)
    window, tokens = config.window.build(), batch(config, groups.device)
    optimizer = adamw(model, config, groups.device)
    wide = torch.autocast(groups.device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def step() -> None:
        with wide:
            loss = model(tokens, window.loss_rows, window.recent).objective / len(tokens) / window.stride
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, lambda: None


def transformers(config: RunConfig, groups) -> tuple[Callable, Callable]:
    """A Llama of the same shape, sdpa under the window's dense mask, its own loss on loss rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    keys, window = config.model, config.window.build()
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=keys.padded_vocabulary, hidden_size=keys.hidden, num_hidden_layers=keys.layers,
        intermediate_size=keys.width_of_ffn, num_attention_heads=keys.heads, num_key_value_heads=keys.groups,
        tie_word_embeddings=keys.tied, attn_implementation="sdpa", max_position_embeddings=window.rows,
    )).to(groups.device, dtype_of(config))  # fmt: skip
    model = torch.compile(model) if config.execution.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = batch(config, groups.device)
    rows = torch.arange(window.rows, device=groups.device)
    allowed = window.allow(rows[:, None], rows[None, :])
    mask = torch.zeros(allowed.shape, dtype=dtype_of(config), device=groups.device).masked_fill_(
        ~allowed, -torch.inf
    )

    def step() -> None:
        out = model(tokens[:, :-1], attention_mask=mask[None, None], logits_to_keep=window.stride)
        targets = tokens[:, 1:][:, window.loss_rows]
        torch.nn.functional.cross_entropy(out.logits.float().flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, lambda: None


def timed(step: Callable, config: RunConfig, groups, arguments) -> dict:
    """The median step, each waited for, after warm-up; what is held at most."""
    cuda = arguments.device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for number in range(3 if arguments.toy else 25):
        wait()
        begun = time.perf_counter()
        step()
        wait()
        if number >= (1 if arguments.toy else 5):
            times.append(time.perf_counter() - begun)
    seconds, window, samples = statistics.median(times), config.window.build(), config.batch.size
    cost, peak = cost_of(config.model, window), peak_flops(groups.device, config.precision)
    return {
        "ms": 1e3 * seconds,
        "processed_tokens_per_second": samples * window.rows / seconds,
        "predicted_tokens_per_second": samples * window.stride / seconds,
        "mfu_exact_mask": samples * cost.training_flops / seconds / peak if peak else None,
        "mfu_full_square": samples * cost.training_flops_full_square / seconds / peak if peak else None,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "predicted_gib_eager": predict(config, groups.topology).peak / 2**30,
    }


def profiled(step: Callable, arguments) -> str:
    from torch.profiler import ProfilerActivity, profile

    wanted = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if arguments.device == "cuda" else [])
    with profile(activities=wanted) as recorded:
        step()
    recorded.export_chrome_trace(str(arguments.out.with_suffix(".trace.json")))
    column = "self_cuda_time_total" if arguments.device == "cuda" else "self_cpu_time_total"
    return recorded.key_averages().table(sort_by=column, row_limit=25)


if __name__ == "__main__":
    main()
