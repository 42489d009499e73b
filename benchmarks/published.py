"""Published training speeds, as configurations of ours with the same products, attention and traffic.

Their GPT-like models have a feed-forward of two matrices 4h wide; ours has three of 8/3 h, as many parameters and
FLOPs. Full recomputation is ours; torchtitan's "selective" computes every second product again, which is ours of
every second block. llm-foundry and torchtitan ran FlashAttention 2, which is ``split_flash`` here; Bridge's Transformer
Engine runs cuDNN's attention, which ``auto`` stands for. Sources:

- Narayanan et al. 2021 (2104.04473), table 1: TFLOP/s with recomputation counted, by their formula; attention with
  its scores in memory, which here is ``execution.attention=reference``; micro-batches are not given there.
- llm-foundry, scripts/train/benchmarking/README.md at 061f2c7: FSDP, FlashAttention.
- torchtitan, benchmarks/llama3_h100_202412_torchtitan.md at 31a17bf (500 W, HBM2e),
  benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md at 1af2937.
- Megatron-Bridge, docs/performance-summary-archive.md at 0a25f91, 25.11 (25.09 where said).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """``speed``: tokens a second of one GPU. ``asked``: among the rows that the project is held to."""

    source: str
    model: str
    device: str
    gpus: int
    speed: float
    keys: dict[str, Any]
    asked: bool = False

    @property
    def seconds(self) -> float:
        """Of a step."""
        window = self.keys["window"]
        return self.keys["batch"]["size"] * window["causal"] / (self.speed * self.gpus)


_MPT = {  # name: layers, hidden, heads
    "125m": (12, 768, 12), "350m": (24, 1024, 16), "760m": (24, 1536, 12), "1b": (24, 2048, 16), "3b": (32, 2560, 20),
    "7b": (32, 4096, 32), "13b": (40, 5120, 40), "30b": (48, 7168, 56), "70b": (80, 8192, 64),
}  # fmt: skip
_LLAMA = {
    "8b": {"layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "ffn": 14336, "vocabulary": 128256, "tied": False},
    "70b": {"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672, "vocabulary": 128256,
            "tied": False},
}  # fmt: skip


def _keys(model: dict[str, Any], sequence: int, size: int, micro: int | None, recompute: str = "none", every: int = 1,
          **more: Any) -> dict[str, Any]:  # fmt: skip
    execution = {
        "recompute": recompute,
        "recompute_every": every,
        "compile": True,
        **more.pop("execution", {}),
    }
    return {
        "model": model, "window": {"recent": 0, "causal": sequence}, "precision": "bf16",
        "batch": {"size": size, "micro": micro}, "execution": execution,
        "parallel": {"zero": 3, **more.pop("parallel", {})}, **more,
    }  # fmt: skip


def _narayanan(billions: float, heads: int, hidden: int, layers: int, tensor: int, pipeline: int, gpus: int,
               batch: int, teraflops: float) -> Row:  # fmt: skip
    s, v = 2048, 51200
    flops = 96 * batch * s * layers * hidden**2 * (1 + s / (6 * hidden) + v / (16 * layers * hidden))
    speed = batch * s / (flops / (gpus * teraflops * 1e12)) / gpus
    model = {"layers": layers, "hidden": hidden, "heads": heads, "vocabulary": v, "learned_positions": s}
    keys = _keys(model, s, batch, None, "full", execution={"attention": "reference"},
                 parallel={"zero": 1, "tensor": tensor, "pipeline": pipeline})  # fmt: skip
    return Row("Narayanan 2021", f"GPT {billions}B", "a100-80g", gpus, speed, keys, asked=True)


def _foundry(name: str, sequence: int, gpus: int, device: str, micro: int, accumulated: int, speed: float,
             again: bool, asked: bool = False) -> Row:  # fmt: skip
    layers, hidden, heads = _MPT[name]
    model = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "vocabulary": 50368,
        "learned_positions": sequence,
    }
    keys = _keys(model, sequence, gpus * micro * accumulated, micro, "full" if again else "none",
                 execution={"attention": "split_flash"})  # fmt: skip
    return Row("llm-foundry", f"MPT {name}, {sequence}", device, gpus, speed, keys, asked)


def _llama(source: str, name: str, device: str, gpus: int, micro: int, accumulated: int, speed: float, *,
           every: int | None = None, fp8: bool = True, zero: int = 3, tensor: int = 1, pipeline: int = 1,
           compile: bool = True, asked: bool = False, note: str = "") -> Row:  # fmt: skip
    size = gpus // (tensor * pipeline) * micro * accumulated
    engine = "split_flash" if source == "torchtitan" else "auto"
    keys = _keys(_LLAMA[name], 8192, size, micro, "none" if every is None else "full", every or 1,
                 execution={"fp8": fp8, "compile": compile, "attention": engine},
                 parallel={"zero": zero, "tensor": tensor, "pipeline": pipeline})  # fmt: skip
    kind = "fp8" if fp8 else "bf16"
    return Row(source, f"Llama 3 {name}, 8192, {kind}{note}", device, gpus, speed, keys, asked)


ROWS = [
    _narayanan(1.7, 24, 2304, 24, 1, 1, 32, 512, 137),
    _narayanan(3.6, 32, 3072, 30, 2, 1, 64, 512, 138),
    _narayanan(7.5, 32, 4096, 36, 4, 1, 128, 512, 142),
    _narayanan(18.4, 48, 6144, 40, 8, 1, 256, 1024, 135),
    _narayanan(39.1, 64, 8192, 48, 8, 2, 512, 1536, 138),
    _narayanan(76.1, 80, 10240, 60, 8, 4, 1024, 1792, 140),
    _foundry("1b", 2048, 8, "h100-80g", 14, 1, 45455, False, asked=True),
    _foundry("1b", 512, 8, "h100-80g", 56, 4, 52275, False, asked=True),
    _foundry("3b", 1024, 8, "h100-80g", 20, 6, 27046, False, asked=True),
    _foundry("7b", 2048, 8, "h100-80g", 6, 1, 10643, False, asked=True),
    _foundry("760m", 2048, 16, "h100-80g", 24, 1, 68551, False),
    _foundry("1b", 8192, 8, "h100-80g", 3, 4, 29157, False),
    _foundry("1b", 2048, 64, "h100-80g", 20, 1, 44402, False),
    _foundry("3b", 4096, 8, "h100-80g", 5, 6, 20964, False),
    _foundry("3b", 2048, 64, "h100-80g", 6, 3, 22525, False),
    _foundry("7b", 1024, 8, "h100-80g", 64, 2, 10203, True),
    _foundry("7b", 8192, 8, "h100-80g", 8, 2, 6935, True),
    _foundry("13b", 2048, 8, "h100-80g", 2, 1, 4792, False),
    _foundry("13b", 2048, 64, "h100-80g", 2, 1, 4800, False),
    _foundry("13b", 4096, 8, "h100-80g", 10, 3, 4717, True),
    _foundry("30b", 2048, 8, "h100-80g", 3, 21, 2002, True),
    _foundry("30b", 2048, 32, "h100-80g", 14, 3, 2308, True),
    _foundry("70b", 2048, 64, "h100-80g", 8, 4, 1039, True),
    _foundry("1b", 2048, 8, "a100-80g", 14, 4, 20513, False),
    _foundry("1b", 512, 8, "a100-80g", 56, 4, 23148, False),
    _foundry("3b", 2048, 8, "a100-80g", 10, 2, 10811, False),
    _foundry("3b", 8192, 8, "a100-80g", 3, 6, 7695, False),
    _foundry("7b", 2048, 8, "a100-80g", 6, 2, 4641, False),
    _foundry("7b", 4096, 8, "a100-80g", 16, 2, 3684, True),
    _foundry("13b", 2048, 8, "a100-80g", 2, 3, 2262, False),
    _foundry("13b", 8192, 8, "a100-80g", 5, 3, 1795, True),
    _foundry("30b", 2048, 8, "a100-80g", 3, 21, 916, True),
    _foundry("70b", 2048, 64, "a100-80g", 8, 4, 410, True),
    _foundry("7b", 2048, 64, "a100-40g", 18, 1, 3665, True),
    _foundry("13b", 2048, 64, "a100-40g", 16, 1, 1976, True),
    _foundry("350m", 2048, 8, "a100-80g", 32, 2, 58782, False),
    _llama("torchtitan", "8b", "h100-500w", 8, 2, 1, 6667, every=2, fp8=False, asked=True),
    _llama("torchtitan", "8b", "h100-500w", 8, 2, 1, 8532, every=2, asked=True),
    _llama("torchtitan", "8b", "h100-500w", 128, 2, 1, 6514, every=2, fp8=False),
    _llama("torchtitan", "8b", "h100-500w", 128, 2, 1, 8380, every=2),
    _llama("torchtitan", "8b", "h200", 32, 2, 1, 10938, every=2, asked=True),
    _llama("torchtitan", "8b", "h200", 64, 2, 1, 10753, every=2, asked=True),
    _llama("Bridge", "8b", "h100-80g", 8, 1, 16, 14451, asked=True),
    _llama("Bridge", "8b", "gb200", 8, 2, 8, 31508, zero=1, asked=True),
    _llama("Bridge", "8b", "b200", 8, 2, 8, 30624, zero=1, asked=True),
    _llama("Bridge", "70b", "gb200", 64, 2, 2, 4312),
    _llama("Bridge", "70b", "h100-80g", 64, 1, 64, 1602, zero=1, tensor=4, pipeline=8),
    _llama("Bridge 25.09", "8b", "b200", 8, 2, 8, 29994, zero=1),
]
