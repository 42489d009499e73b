"""The arms of a comparison: one run, with other windows and losses, as long as the same FLOPs allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from megarc.config import build, to_dict
from megarc.data import Maker
from megarc.errors import UserError
from megarc.interval import pairs_of
from megarc.model import cost_of
from megarc.quantity import Quantity
from megarc.train import Lengths, RunConfig, open_train
from megarc.window import Window

if TYPE_CHECKING:
    from megarc.science.recipes.config import CompareConfig

CAUSAL = ("causal", "causal-c", "late-c", "causal+loss", "causal-c+loss", "late-c+loss")
"""The causal arms: every row predicted; only the rows of C, as in [R | C]; first the one, then the other. With
``+loss``, tokens are hidden: in all rows of ``causal``, else in those that [R | C] would hide."""
ARMS = (*CAUSAL, "rc", "late", "mix", "rc+loss", "late+loss", "mix+loss")
"""All arms: from the start [R | C]; causal, then [R | C]; both by sample; each of these with a loss on R."""
_CONTROLS = {"rc": "causal-c", "late": "late-c", "rc+loss": "causal-c+loss", "late+loss": "late-c+loss"}

_MEASURED = 512  # packed rows whose pairs and loss rows are counted


def arm_config(comparison: CompareConfig, arm: str) -> RunConfig:
    """The run of ``arm``: its windows, and as many steps as the budget's FLOPs allow.

    Raises:
        UserError: where that is not one step.
    """
    base = _recipe(comparison, arm)
    budget, low, high = budget_of(comparison), 0, 1
    of = SampleFlops(base)

    def flops(steps: int) -> float:
        return flops_of(_of_length(base, steps), of)

    while flops(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if flops(middle) <= budget else (low, middle)
    if low < 2:
        raise UserError(f"arm {arm}: the FLOPs of run.length are not two steps of it; make run.length longer")
    return _of_length(base, low)


def control_of(comparison: CompareConfig, arm: str) -> str | None:
    """The causal arm with the same inputs and loss rows, so that only the mask differs; None: there is none."""
    if comparison.run.data.packs and arm == "late":
        return "causal"  # late-c differs from it in nothing
    return _CONTROLS.get(arm)


def with_vocabulary(comparison: CompareConfig, makers: Mapping[str, Maker]) -> CompareConfig:
    """``comparison`` with the vocabulary of its data, which FLOPs depend on.

    Raises:
        UserError: as a run does, where there is no data, or it does not know its vocabulary.
    """
    run = comparison.run
    if run.model.vocabulary is None:
        known = open_train(run, makers).vocabulary
        if known is None:
            raise UserError(
                "run.model.vocabulary is not given, and run.data.train does not know it; set the key"
            )
        run = run.model_copy(update={"model": run.model.model_copy(update={"vocabulary": known})})
    return comparison.model_copy(update={"run": run})


def budget_of(comparison: CompareConfig) -> float:
    """FLOPs of the run, were it causal with every row predicted; of a task, which says itself which rows are, its
    first arm's. So arms that are added later have the same budget."""
    text = all(source.kind == "corpus" for source in comparison.run.data.train)
    return flops_of(_recipe(comparison, "causal" if text else comparison.arms[0]))


def flops_of(config: RunConfig, of: SampleFlops | None = None) -> float:
    """Forward and backward of the whole run by the exact mask: matrices, attention, head on predicted rows.

    Args:
        of: FLOPs of a sample of this run's data, where they are known already.
    """
    lengths = Lengths(config)
    samples = lengths.batches.samples_before(lengths.total)
    return lengths.shapes.before(samples, of or SampleFlops(config))


class SampleFlops:
    """Forward and backward FLOPs of a sample by its window. Pairs and loss rows of packed rows are counted."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._known = config, dict[Window, float]()

    def __call__(self, window: Window) -> float:
        if window not in self._known:
            self._known[window] = self._packed(window) if self._config.data.packs else self._plain(window)
        return self._known[window]

    def _plain(self, window: Window) -> float:
        hidden = self._config.objective.recent
        head = 2 * self._config.model.padded_vocabulary * self._config.model.hidden
        more = 0.0  # rows that bear a loss since the token behind them is hidden, on average
        if hidden is not None:
            silent = window.rows - window.stride
            rows = {"recent": window.recent - 1, "context": silent - 1, "all": silent}[hidden.rows]
            more = hidden.share * hidden.mask * max(0, rows)
        return cost_of(self._config.model, window).training_flops + 3 * head * more

    def _packed(self, window: Window) -> float:
        """Of the mean of the first rows of the order."""
        given = {"recent": window.recent, "causal": window.causal, "stride": window.stride}
        tree = to_dict(self._config) | {"window": given}
        hidden = self._config.objective.recent
        if window.recent < 2 and hidden is not None and hidden.rows == "recent":
            tree["objective"] = {}  # a causal stage has no R with a loss
        run = build(RunConfig, tree, "a packed row")
        read = open_train(run).read(0, _MEASURED)
        assert read.weights is not None
        narrowing = run.model.narrowing
        pairs = pairs_of(read.seen(), window.rows, _MEASURED, narrowing)
        loss_rows = int((read.weights > 0).sum())
        cost = cost_of(run.model, window)
        return cost.of_work(
            pairs / (_MEASURED * narrowing.pairs(window)), loss_rows / (_MEASURED * window.stride)
        ).training_flops


def targets_window(comparison: CompareConfig, config: RunConfig) -> Window:
    """The window in which an arm is scored: its own mask, and the last rows of every arm's C."""
    own, base = config.window.build(), comparison.run.window.build()
    return Window(own.recent, own.causal, base.stride)


def _recipe(comparison: CompareConfig, arm: str) -> RunConfig:
    """The run of ``arm``, of whatever length."""
    tree = to_dict(comparison.run) | {"window": _window(comparison, arm), "objective": {}}
    if arm.endswith("+loss"):
        kind = arm.removesuffix("+loss")
        rows = "all" if kind == "causal" else "context" if arm in CAUSAL else "recent"
        tree["objective"] = {"recent": {**to_dict(comparison.loss), "rows": rows}}
    if comparison.run.data.packs and not arm.startswith(("causal-c", "rc")):
        # Where these arms are causal, they predict every row: questions too.
        tree["data"] = {**tree["data"], "question_weight": 1.0}
    return build(RunConfig, tree, f"arm {arm}")


def _of_length(config: RunConfig, steps: int) -> RunConfig:
    return config.model_copy(update={"length": Quantity(float(steps), "steps")})


def _window(comparison: CompareConfig, arm: str) -> dict[str, Any]:
    base = comparison.run.window.build()
    split = {"recent": base.recent, "causal": base.causal, "stride": base.stride}
    causal = {"recent": 0, "causal": base.rows, "stride": base.rows}
    same_windows = {**causal, "stride": base.stride}
    kind = arm.removesuffix("+loss")
    if kind == "causal":
        return causal
    if kind == "causal-c":
        return same_windows
    if kind in ("late", "late-c"):
        later = {"at": f"{comparison.late!r} of run", **(split if kind == "late" else same_windows)}
        return {"stages": [{"at": "0 samples", **causal}, later]}
    if kind == "mix":
        return {**split, "mix": [{"share": comparison.mixed, "recent": 0}]}
    return split
