"""Says before a run whether it fits, how fast it is, how long it takes and what it costs, for each layout."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.plan import DeviceConfig, Plan, Planner
    from megarc.train import RunConfig

EXAMPLES = """examples:
  python launch/plan.py --config configs/clusters/175B-1024.yaml --gpus 1024 --device h100-80g
  python launch/plan.py --config FILE --gpus 256 --device a100-80g --topology tensor=8,pipeline=4,micro=1 --explain
  python launch/plan.py --config FILE --gpus 64 --device h200 --price 2.5 --plots plans    with cost and pictures
  python launch/plan.py --config FILE --gpus 1024 --device h100-80g --write run.yaml      writes the run's file
  python launch/plan.py --config FILE --gpus 8 --device h100-80g --json                   also prints JSON
  python launch/plan.py --calibrate here.yaml && python launch/plan.py --config FILE --gpus 2 --device here.yaml

docs/plan.md explains how times are predicted, and compares predictions with published speeds."""
_VOCABULARY = 128_000
_SHOWN = 20


def main() -> int:
    arguments = parsed(parser())
    if arguments.calibrate is not None:
        return measure(arguments.calibrate)
    for name in ("config", "gpus", "device"):
        if getattr(arguments, name) is None:
            raise UserError(f"give --{name} (or --calibrate FILE); --help shows examples")
    if arguments.gpus < 1:
        raise UserError(f"--gpus is {arguments.gpus}; give 1 or more")
    if arguments.price is not None and not 0 <= arguments.price < math.inf:
        raise UserError(f"--price is {arguments.price}; give what one GPU costs for an hour, 0 or more")
    if arguments.critical_batch is not None and not 0 < arguments.critical_batch < math.inf:
        raise UserError(f"--critical-batch is {arguments.critical_batch}; give a number of samples above 0")
    from megarc.plan import Planner, find_device

    device = find_device(arguments.device)
    config = read(arguments)
    planner = Planner(config, device)
    plans = wanted(planner, arguments)
    tell(config, device, plans, arguments)
    if arguments.plots is not None:
        draw(planner, plans, arguments)
    fitting = [plan for plan in plans if plan.fits]
    if fitting and arguments.write is not None:
        write(config, device, fitting[0], arguments)
    if arguments.json:
        print(json.dumps({"topologies": [plan.facts() for plan in plans]}))
    if not fitting:
        raise does_not_fit(planner, plans, arguments)
    return 0


def read(arguments: argparse.Namespace) -> RunConfig:
    """The run's keys; a vocabulary that only the data knows is assumed."""
    from megarc.config import load
    from megarc.train import RunConfig

    config = load(RunConfig, arguments.config, arguments.overrides)
    if config.model.vocabulary is not None:
        return config
    print(
        f"assumes a vocabulary of {_VOCABULARY} ids; the data decides it, or model.vocabulary=...",
        file=sys.stderr,
    )
    return config.model_copy(update={"model": config.model.model_copy(update={"vocabulary": _VOCABULARY})})


def wanted(planner: Planner, arguments: argparse.Namespace) -> list[Plan]:
    """All layouts, or the one of --topology."""
    from megarc.plan import parse_layout

    if arguments.topology is None:
        return planner.all(arguments.gpus)
    layout, whole = parse_layout(arguments.topology, planner.config, arguments.gpus)
    if whole:
        return [planner.plan(layout)]
    plans = planner.one(layout, planner.micro_batches(layout.data))
    return plans[:1]


def does_not_fit(planner: Planner, plans: list[Plan], arguments: argparse.Namespace) -> UserError:
    """What is too large, and what would fit."""
    from megarc.plan import what_would_fit

    devices = f"{arguments.gpus} x {planner.device.name}"
    said = f"the model fits no layout of {devices}" if arguments.topology is None else (
        f"the layout of --topology does not fit {devices}"
    )  # fmt: skip
    return UserError(f"{said}: {what_would_fit(planner, plans, arguments.gpus)}")


def tell(config: RunConfig, device: DeviceConfig, plans: list[Plan], arguments: argparse.Namespace) -> None:
    """The table, the best three and, where asked, the formulas with numbers in."""
    from megarc.plan import PARTS, best_three, memory_terms, outlook
    from megarc.report import table

    fitting = [plan for plan in plans if plan.fits]
    shown = (fitting or plans) if arguments.all else (fitting or plans)[:_SHOWN]
    money = ["money"] if arguments.price is not None else []
    several = [
        name for name in ("context", "expert") if any(getattr(plan.layout, name) > 1 for plan in shown)
    ]
    heads = ["tensor", *several, "pipeline", "data", "zero", "micro", "recompute", "offload",
             "GiB", "s a step", "MFU exact", "MFU square", "predicted tok/s", "processed tok/s", "days", "GPU-hours",
             *money]  # fmt: skip
    rows = []
    for plan in shown:
        layout, run = plan.layout, outlook(config, plan, arguments.price)
        rows.append([
            layout.tensor, *(getattr(layout, name) for name in several), layout.pipeline, layout.data, layout.zero,
            layout.micro_batch, layout.recompute, layout.offload, f"{plan.memory_gib:.1f}", f"{plan.step.seconds:.4g}",
            f"{100 * plan.mfu_exact_mask:.1f} %", f"{100 * plan.mfu_full_square:.1f} %",
            f"{plan.predicted_tokens_per_second:.4g}", f"{plan.processed_tokens_per_second:.4g}", f"{run.days:.4g}",
            f"{run.gpu_hours:.4g}", *([f"{run.money:.4g}"] if run.money is not None else []),
        ])  # fmt: skip
    print(
        f"{arguments.gpus} x {device.name}, {device.memory_gib:.0f} GiB each"
        + "".join(f"; {name} 1" for name in ("context", "expert") if name not in several)
    )
    print(table(heads, rows))
    if len(shown) < len(plans):
        print(f"{len(fitting)} of {len(plans)} layouts fit; --all shows all that do, --json every one")
    for number, (plan, why) in enumerate(best_three(plans), start=1):
        print(f"{number}. {plan.layout}: {why}")
    if not shown:
        return
    first = shown[0]
    print(table(["memory of the fullest rank", "GiB"], memory_rows(first)))
    parts = [[PARTS[name], f"{seconds:.4g}", f"{100 * seconds / first.step.seconds:.1f} %"]
             for name, seconds in first.step.parts.items() if seconds]  # fmt: skip
    print(table(["step", "seconds", "share"], parts))
    if arguments.explain:
        print("\n".join([*memory_terms(config, first, device), *first.step.terms]))
        shares = device.reached
        print(f"{device.name}: products {shares.product:.2f} of {device.bf16 / 1e12:.4g} TFLOP/s, attention "
              f"{shares.attention:.2f}, memory {shares.memory:.2f} of {device.bandwidth / 1e12:.3g} TB/s, fp8 "
              f"{shares.fp8:.2f}; docs/plan.md has the formulas")  # fmt: skip


def memory_rows(plan: Plan) -> list[list[str]]:
    from dataclasses import asdict

    parts = asdict(plan.memory)
    names = ("weights", "masters", "moments", "buffers", "step")
    rows = [[name, f"{parts[name] / 2**30:.2f}"] for name in names]
    rows[-1][0] = f"a step at its most (activations {parts['activations'] / 2**30:.2f})"
    return [*rows, ["with what the driver and communication take", f"{plan.memory_gib:.2f}"]]


def draw(planner: Planner, plans: list[Plan], arguments: argparse.Namespace) -> None:
    """Step time and memory by layout; time to train over GPU counts."""
    from megarc.plan import time_over_gpus
    from megarc.report import layouts, time_to_train

    folder: Path = arguments.plots
    points = [(plan.memory_gib, plan.step.seconds, f"{plan.layout.tensor} x {plan.layout.pipeline}", plan.fits)
              for plan in plans]  # fmt: skip
    layouts(points, planner.device.memory_gib, folder / "layouts.png")
    curve, knee = time_over_gpus(planner, arguments.gpus, arguments.critical_batch)
    time_to_train(curve, knee, folder / "time.png")
    print(f"pictures: {folder / 'layouts.png'}, {folder / 'time.png'}")


def write(config: RunConfig, device: DeviceConfig, plan: Plan, arguments: argparse.Namespace) -> None:
    from megarc.plan import best_three, outlook, write_run_file

    run = outlook(config, plan)
    reason = best_three([plan])[0][1] if plan.fits else ""
    memory = plan.memory
    state = (memory.masters + memory.moments) / 2**30
    why = [
        f"{arguments.config.stem} on {arguments.gpus} {device.name}, as launch/plan.py lays it out: {plan.layout}",
        f"- {reason};",
        f"- {plan.memory_gib:.1f} of {device.memory_gib:.0f} GiB a GPU: weights {memory.weights / 2**30:.1f}, masters "
        f"and moments {state:.1f}, activations {memory.activations / 2**30:.1f};",
        f"- {plan.step.seconds:.3g} s a step, MFU {100 * plan.mfu_exact_mask:.1f} % by the exact mask, "
        f"{run.days:.3g} days to the run's length.",
    ]
    words = ["python launch/plan.py --config", str(arguments.config), "--gpus", str(arguments.gpus), "--device",
             str(arguments.device)]  # fmt: skip
    words += ["--topology", arguments.topology] if arguments.topology else []
    words += [*arguments.overrides, "--write", str(arguments.write)]
    write_run_file(arguments.write, arguments.config, arguments.overrides, plan, why, " ".join(words))
    print(f"run file: {arguments.write}")


def measure(path: Path) -> int:
    """--calibrate."""
    import torch

    from megarc.atomic_write import written_atomically
    from megarc.plan.calibrate import as_file, calibrate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = calibrate(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with written_atomically(path) as file:
            file.write(as_file(found).encode())
    except OSError as error:
        raise UserError(f"--calibrate: {path} cannot be written: {error}") from None
    best = found.fp32 / 1e9
    print(f"{found.name}: products up to {best:.1f} GFLOP/s, memory {found.bandwidth / 1e9:.1f} GB/s, an operator "
          f"{1e6 * found.operator_seconds:.1f} us; written: {path}")  # fmt: skip
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=user_path, help="a run's YAML file; see configs/runs and configs/clusters"
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="devices, one rank each")
    parser.add_argument("--device", metavar="NAME",
                        help="v100-16g, v100-32g, a100-40g, a100-80g, h100-80g, h100-500w, h100-pcie, h200, b200, "
                        "gb200, mi300x, cpu, or a file that --calibrate wrote")  # fmt: skip
    parser.add_argument("--topology", metavar="SIZES",
                        help="plan only this layout: tensor=8,pipeline=8,zero=1,micro=1,recompute=full; parts that are "
                        "left out come from the configuration")  # fmt: skip
    parser.add_argument("--price", type=float, metavar="P", help="price of one GPU for an hour")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print the first layout's formulas of memory and time with their numbers",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"show every layout that fits, not only the first {_SHOWN}"
    )
    parser.add_argument("--json", action="store_true", help="print one object after the text")
    parser.add_argument(
        "--plots", type=user_path, metavar="FOLDER", help="draw layouts.png and time.png there"
    )
    parser.add_argument("--critical-batch", type=float, metavar="B",
                        help="critical batch in samples, for time.png (the last of batch.measured)")  # fmt: skip
    parser.add_argument(
        "--write", type=user_path, metavar="FILE", help="write the run's file with the best layout"
    )
    parser.add_argument(
        "--calibrate", type=user_path, metavar="FILE", help="measure this machine and write its file"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    return parser


if __name__ == "__main__":
    run_script(main)
