"""Trains causal and [R | C] recipes on a corpus at equal FLOPs, and says which to use."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.errors import EXIT_SAVED, UserError, reported_once, run_script

if TYPE_CHECKING:
    from megarc.parallel import Groups
    from megarc.science.recipes import Campaign, CompareConfig, Result
    from megarc.train import RunConfig

EXAMPLES = """examples:
  python launch/compare.py --config configs/recipes/text.yaml
  python launch/compare.py --config configs/recipes/text.yaml folder=runs/mine \\
      'run.data.train=[{path: my/train}]' 'run.data.valid=[{path: my/heldout}]' run.length='2000 steps'
  deepspeed launch/compare.py --config FILE run.precision=bf16      on all GPUs of this machine
  python launch/compare.py --config FILE --jobs 2                   two runs at once, each on one rank
  python launch/compare.py --config FILE --report                   only what is there so far
  python launch/compare.py --keys                                   every key

Every arm has the FLOPs of a causal model that predicts every row and trains for run.length. FLOPs are counted by the
exact mask, with attention and the head on loss rows. Each arm tries the same learning rates and warm-ups on one seed,
and its best setting is trained on more seeds. All arms are scored on the same held-out targets, with at least as much
context. The same command resumes a comparison that was stopped."""


_USED = 0.01  # nats a target that a model gains from seeing R both ways, where it uses the mask


def main() -> int:
    arguments = parser().parse_args()
    from megarc.config import load
    from megarc.key_reference import reference
    from megarc.science import MAKERS
    from megarc.science.recipes import Campaign, CompareConfig

    if arguments.keys:
        print(reference(CompareConfig), end="")
        return 0
    config = load(CompareConfig, arguments.config, arguments.overrides)
    if arguments.report:
        report(Campaign(config, MAKERS, lambda run: True))
        return 0
    if arguments.jobs is not None:
        return compare_at_once(config, arguments.jobs)
    return compare(config.run, lambda train, groups: Campaign(
        config, MAKERS, train, first=groups.first, together=lambda action: on_all(groups, action)
    ))  # fmt: skip


def compare_at_once(config: CompareConfig, at_once: int) -> int:
    """Every run a process of its own, ``at_once`` at a time."""
    from megarc.jobs import Job, run_all, start_of
    from megarc.science import MAKERS
    from megarc.science.recipes import Campaign
    from megarc.train import Diverged, Lengths

    diverged = set[Path]()

    def note(job: Job, error: UserError) -> None:
        if job.folder.failed_with() != Diverged.__name__:
            raise error
        diverged.add(job.config.folder)

    def train(runs: Sequence[RunConfig]) -> set[Path]:
        jobs = [Job(run, Lengths(run).total) for run in runs]
        run_all(jobs, start_of("", Path(__file__).with_name("pretrain.py")), at_once, "runs", note)
        return diverged

    campaign = Campaign(config, MAKERS, lambda run: True)
    (config.folder / "runs").mkdir(parents=True, exist_ok=True)
    campaign.run_at_once(train)
    report(campaign)
    return 0


def compare(run: RunConfig, campaign_of: object) -> int:
    """One rank of all runs of the comparison, one after the other."""
    from megarc.parallel import disconnect
    from megarc.plan import explain_memory
    from megarc.rank_environment import read_rank_environment
    from megarc.science import MAKERS
    from megarc.train import Diverged, Ending, pretrain, start

    assert callable(campaign_of)
    try:
        begun = start(read_rank_environment(), lambda: run, timedelta(seconds=120))
        logging.getLogger("megarc").setLevel(logging.WARNING)

        def train(config: RunConfig) -> bool:
            try:
                if pretrain(config, begun.groups, MAKERS, explain_memory) is Ending.SAVED:
                    sys.exit(EXIT_SAVED)  # a signal: the same command goes on with this run
            except UserError as error:
                if not Diverged.caused(error):
                    raise
                if begun.groups.first:
                    print(f"{config.folder.name} has no loss: {error}", flush=True)
                return False
            return True

        with reported_once(begun.groups.first):
            campaign = campaign_of(train, begun.groups)
        for one in campaign.run():
            if begun.groups.first:
                print(f"{len(campaign.results) + 1}: {one.name}", flush=True)
        if begun.groups.first:
            report(campaign)
    finally:
        disconnect()
    return 0


def on_all(groups: Groups, action: Callable[[], None]) -> None:
    """No rank goes on before the first has scored and written."""
    from megarc.parallel import together

    together(action, groups.world)


def report(campaign: Campaign) -> None:
    """The tables, the picture and the verdict."""
    from megarc.report import loss_curves

    if not campaign.results:
        raise UserError(f"{campaign.file} has no result yet; run the same command without --report")
    print(tries_table(campaign))
    if campaign.best():
        print("\n" + finals_table(campaign))
    curves = {
        arm: campaign.config.folder / "runs" / best.key.name / "metrics.jsonl"
        for arm, best in list(campaign.best().items())[:6]
    }
    present = {arm: path for arm, path in curves.items() if path.exists()}
    if present:
        picture = campaign.config.folder / "loss.png"
        loss_curves(present, picture)
        print(f"\n{picture}: training loss of each arm's best")
    print(
        "\nR both ways: the gain of a trained model from seeing R in both directions, nats a target; below 0: a loss.\n"
    )
    print(words(campaign))


def tries_table(campaign: Campaign, *, markdown: bool = False) -> str:
    """Every try."""
    from megarc.report import table

    columns = [
        "arm",
        "rate",
        "warm-up",
        "seed",
        "steps",
        "FLOPs",
        "nats/target",
        "+-",
        "R both ways",
        "+- of it",
    ]
    return table(columns, [_row(result) for result in campaign.results], markdown=markdown)


def finals_table(campaign: Campaign, *, markdown: bool = False) -> str:
    """Each arm's best rate and warm-up, over its seeds, beside the best causal arm."""
    from megarc.report import table
    from megarc.science.recipes import CAUSAL, paired

    finals = {arm: runs for arm, runs in campaign.finalists().items() if runs}
    means = {arm: sum(one.nats for one in runs) / len(runs) for arm, runs in finals.items()}
    base = min((arm for arm in means if arm in CAUSAL), key=means.__getitem__, default=None)
    rows: list[list[object]] = []
    for arm, runs in finals.items():
        rate = f"{runs[0].rate:g}" + (" (edge)" if campaign.at_the_edge(arm) else "")
        row: list[object] = [arm, rate, runs[0].warmup, len(runs), _number(means[arm])]
        if base is None or arm == base:
            row += [None, None, None]
        else:
            theirs = {one.seed: one.nats for one in finals[base]}
            both = [one for one in runs if one.seed in theirs]
            found = paired([one.nats for one in both], [theirs[one.seed] for one in both])
            row += [f"{found.mean:+.4f}", _number(found.error), _number(found.p)]
        rows.append([*row, _number(sum(one.both_ways for one in runs) / len(runs))])
    columns = [
        "arm",
        "rate",
        "warm-up",
        "seeds",
        "nats/target",
        f"below {base}",
        "+- of it",
        "p",
        "R both ways",
    ]
    return table(columns, rows, markdown=markdown)


def words(campaign: Campaign) -> str:
    """What follows from it, in plain words."""
    from megarc.science.recipes import verdict

    found = verdict(campaign)
    if found is None:
        return f"There is no verdict yet. {_what_the_grid_lacks(campaign)}"
    base, best, difference = found
    side = "below" if difference.mean >= 0 else "above"
    figure = f"{abs(difference.mean):.4f} nats a target {side} the best causal arm, {base}, at equal FLOPs"
    if math.isnan(difference.p):
        said = f"{best} lies {figure}. One seed shows no difference: give more seeds."
    else:
        figure += (
            f" (n = {difference.pairs} seeds, +- {difference.error:.4f}, two-sided p = {difference.p:.2g})"
        )
        if abs(difference.mean) > 2 * difference.error and difference.p < 0.05:
            said = f"Use {best if difference.mean > 0 else base}: {best} lies {figure}."
        else:
            said = f"Neither is clearly ahead: {best} lies {figure}. Causal is the simpler choice."
    return " ".join([said, *_whether_it_is_the_mask(campaign, best, ahead=difference.mean > 0)])


def _what_the_grid_lacks(campaign: Campaign) -> str:
    done = {result.key for result in campaign.results}
    left = Counter(one.arm for one in campaign.grid() if one not in done)
    if not left:
        return "The runs of all causal arms, or of all others, ended without a loss."
    return f"Runs of the grid that are missing: {', '.join(f'{arm} {count}' for arm, count in left.items())}."


def _whether_it_is_the_mask(campaign: Campaign, best: str, *, ahead: bool) -> list[str]:
    """What keeps a difference from being one of masks."""
    from megarc.science.recipes import control_of

    runs, control, said = campaign.finalists()[best], control_of(campaign.config, best), list[str]()
    gained = sum(one.both_ways for one in runs) / len(runs)
    if gained < _USED:
        said.append(
            f"Seeing R both ways is worth {gained:.4f} nats to {best}, less than {_USED}, so nothing shows that the "
            "mask makes the difference."
        )
    elif ahead and control not in campaign.best():
        said.append(
            f"Whether the mask makes the difference is open: {control or 'a causal arm'}, with the same inputs and "
            "loss rows, has not been run."
        )
    return said


def _row(result: Result) -> list[object]:
    return [
        result.arm, f"{result.rate:g}", result.warmup, result.seed, result.steps, f"{result.flops:.4g}",
        _number(result.nats), _number(result.error), _number(result.both_ways), _number(result.both_ways_error),
    ]  # fmt: skip


def _number(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4f}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="keys in YAML")
    parser.add_argument("--jobs", type=whole_number, metavar="N",
                        help="train N runs at once, each on one rank (one at a time, on all ranks)")  # fmt: skip
    parser.add_argument("--report", action="store_true", help="print what is there so far")
    parser.add_argument("--keys", action="store_true", help="print every key")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys that win over the file's")
    return parser


if __name__ == "__main__":
    run_script(main)
