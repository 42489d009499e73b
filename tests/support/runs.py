"""Configurations of tiny runs, and what stands on disk after one."""

import json

import torch
from safetensors.torch import load_file

from megarc.train.checkpoint import latest


def config(folder, zero, length, **changes):
    """A tiny [R | C] model on the weighted task, with accumulation, clipping, z-loss and decay at work."""
    tree = {
        "folder": str(folder),
        "length": f"{length} steps",
        "window": {"recent": 24, "causal": 16, "stride": 16},
        "model": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "qk_norm": True},
        "data": {
            "train": [{"kind": "pointer_chase"}],
            "valid": [{"kind": "pointer_chase", "options": {"seed": 9}}],
        },
        "batch": {"size": 8, "micro": 2},
        "optimizer": {"lr": 3e-3, "clip": 0.5, "z_loss": 1e-3},
        "schedule": {"kind": "constant", "warmup": "2 steps"},
        "parallel": {"zero": zero},
        "validation": {"every": "3 steps", "windows": 5},
        "checkpoint": {"every": "100 steps"},
        "logging": {"every": 1, "tensorboard": False, "peak_flops": 1e12},
        "health": {"self_check": "off"},  # tests/train/self_check turns it on
    }
    for dotted, value in changes.items():
        *group, name = dotted.split("__")
        (tree.setdefault(group[0], {}) if group else tree)[name] = value
    return tree


def pretrain(*args, **changes):
    return {"do": "pretrain", "config": config(*args, **changes)}


def metrics(folder, name):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return torch.tensor([line[name] for line in lines if name in line], dtype=torch.float64)


def full_state(folder):
    """Every parameter's master and moments, put together from the files without our loader."""
    checkpoint = latest(folder) if folder.name == "checkpoints" else latest(folder / "checkpoints")
    assert checkpoint is not None
    state = {}
    for file in sorted(checkpoint.folder.glob("rank-*.json")):
        tensors = load_file(file.with_suffix(".safetensors"))
        for entry in json.loads(file.read_text())["fragments"]:
            shape = entry["shape"] if len(entry["shape"]) == 2 else [1, *entry["shape"]]
            for part in ("master", "exp_avg", "exp_avg_sq", "average", "state"):
                name, offset = f"{entry['name']}/{part}", 0
                if name not in tensors:  # Muon has one moment; an average is kept where it is asked for
                    continue
                full = state.setdefault(name, torch.full(shape, float("nan")))
                for top, bottom, left, right in entry["boxes"]:
                    target = full[top:bottom, left:right]
                    assert target.isnan().all(), "an element stands twice"
                    target.copy_(tensors[name][offset : offset + target.numel()].view(target.shape))
                    offset += target.numel()
                assert offset == len(tensors[name])
    assert all(full.isfinite().all() for full in state.values()), "an element is missing"
    return state
