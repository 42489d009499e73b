"""Which values of different parts go together. What was never seen right is refused, with the reason."""

from __future__ import annotations

from megarc.data import DataConfig, ObjectiveConfig, WindowConfig
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.quantity import Quantity
from megarc.train.config.batch import BatchConfig
from megarc.train.config.optimizer import OptimizerConfig
from megarc.train.config.parallel import ParallelConfig
from megarc.train.config.schedule import ScheduleConfig


def check(
    model: ModelConfig, window: WindowConfig, data: DataConfig, parallel: ParallelConfig, precision: str
) -> None:
    """
    Raises:
        ValueError: where they do not; the tree of keys says where it was given.
    """
    _positions_reach(model, window)
    _packing_fits(data, model)
    _pipeline_fits(parallel, model)
    _world_fits(parallel)
    _zero_fits(parallel)
    _precision_fits(precision, parallel)


def check_parametrization(model: ModelConfig, optimizer: OptimizerConfig) -> None:
    """muP and CompleteP give each parameter a learning rate of its own.

    Raises:
        ValueError: where the optimizer's library cannot.
    """
    if model.parametrization != "standard" and optimizer.library != "torch":
        raise ValueError(
            f"model.parametrization {model.parametrization} needs optimizer.library=torch, which takes a learning rate "
            f"for each parameter, and it is {optimizer.library}"
        )


def check_mixers(model: ModelConfig, execution: ExecutionConfig) -> None:
    """Recurrent mixers.

    Raises:
        ValueError: where they do not go with how the model is computed.
    """
    if execution.compile and execution.recurrence == "fla" and {"ssm", "ssm_attention"} & set(model.mixers):
        raise ValueError(
            "execution.compile with execution.recurrence fla is not supported: no test compares compiled blocks that "
            "call these kernels with eager ones; use execution.recurrence=torch, or execution.compile=false"
        )


def check_experts(
    model: ModelConfig, execution: ExecutionConfig, parallel: ParallelConfig, optimizer: OptimizerConfig
) -> None:
    """Experts.

    Raises:
        ValueError: where they do not go with how the model is computed.
    """
    if parallel.expert > 1:
        _expert_ranks_fit(model, parallel, optimizer)
    if model.experts is None:
        return
    if execution.fp8:
        raise ValueError(
            "execution.fp8 with model.experts is not supported: grouped products in fp8 are not written; use "
            "execution.fp8=false"
        )
    if execution.compile:
        raise ValueError(
            "execution.compile with model.experts is not supported: no test compares it with eager code; use "
            "execution.compile=false"
        )


def check_context(
    parallel: ParallelConfig, model: ModelConfig, execution: ExecutionConfig, window: WindowConfig
) -> None:
    """Ranks that share the rows of a window.

    Raises:
        ValueError: where the rows cannot be shared, or no test has seen it.
    """
    ranks = parallel.context
    if ranks == 1:
        return
    parts = ranks * (parallel.tensor if parallel.sequence else 1)
    for one in window.all():
        if one.rows % parts:
            near = " or ".join(
                str(count * parts) for count in (one.rows // parts, one.rows // parts + 1) if count
            )
            split = (
                f" x parallel.tensor {parallel.tensor}, which parallel.sequence splits,"
                if parts > ranks
                else ""
            )
            raise ValueError(
                f"parallel.context {ranks}{split} does not divide the {one.rows} rows of the window {one}: "
                f"make window.recent + window.causal {near}, or change parallel.context"
            )
    recurrent = sorted(set(model.mixers) - {"attention"})
    if recurrent:
        raise ValueError(
            f"parallel.context {ranks} with model.mixers {', '.join(recurrent)} is not supported: their state goes "
            "from row to row, over ranks too; use parallel.context=1"
        )
    for name, on in (
        ("execution.compile", execution.compile),
        ("execution.fp8", execution.fp8),
        ("parallel.offload", parallel.offload != "none"),
        ("parallel.node", parallel.node is not None),
        ("parallel.expert", parallel.expert > 1),
    ):
        if on:
            raise ValueError(
                f"parallel.context {ranks} with {name} is not supported: no test compares it with one rank; use one "
                "of them alone"
            )


def _expert_ranks_fit(model: ModelConfig, parallel: ParallelConfig, optimizer: OptimizerConfig) -> None:
    ranks = parallel.expert
    if model.experts is None:
        raise ValueError(
            f"parallel.expert {ranks} distributes experts, but model.experts is not given; use 1"
        )
    count = model.experts.count
    if count % ranks:
        near = [str(one) for one in (count // ranks * ranks, -(-count // ranks) * ranks) if one]
        raise ValueError(
            f"parallel.expert {ranks} does not divide model.experts.count {count}; use a count of "
            f"{' or '.join(near)}, or expert ranks that divide it"
        )
    if parallel.zero == 3:
        raise ValueError(
            f"parallel.expert {ranks} with parallel.zero 3 is not supported: DeepSpeed 0.19.8 partitions all "
            "weights over all data ranks there, and each expert is on some of them only; use parallel.zero=0, 1 or 2"
        )
    if parallel.offload != "none":
        raise ValueError(
            f"parallel.expert {ranks} with parallel.offload {parallel.offload} is not supported: no test compares it "
            "with one rank; use parallel.offload=none"
        )
    if optimizer.library != "torch":
        raise ValueError(
            f"parallel.expert {ranks} needs optimizer.library=torch: no test compares others with one rank, and it is "
            f"{optimizer.library}"
        )


def check_widths(model: ModelConfig, objective: ObjectiveConfig) -> None:
    """A nested model's widths.

    Raises:
        ValueError: where what is trained of them does not go with the model.
    """
    weights, widths = objective.width_weights, model.nested
    if widths is None:
        if weights is not None or objective.widths != "drawn":
            raise ValueError(
                "objective.widths and objective.width_weights need model.nested, [1/4, 1/2, 1] for instance"
            )
        return
    if weights is not None and len(weights) != len(widths):
        raise ValueError(
            f"objective.width_weights has {len(weights)} numbers for the {len(widths)} widths of model.nested"
        )


def check_windows(
    window: WindowConfig, data: DataConfig, batch: BatchConfig, objective: ObjectiveConfig
) -> None:
    """Windows that change, and a loss on R.

    Raises:
        ValueError: where they do not go with the data or the batch.
    """
    _objective_fits(objective, window, data)
    _changes_fit(window, data)
    _stages_fit(window, batch)


def check_batch_rules(
    batch: BatchConfig,
    schedule: ScheduleConfig,
    optimizer: OptimizerConfig,
    length: Quantity,
    window: WindowConfig,
) -> None:
    """Rules by which the batch and the optimizer's keys follow each other.

    Raises:
        ValueError: where a rule has nothing to go by.
    """
    if batch.rate == "seesaw":
        _seesaw_fits(schedule, length, window)
    if "tokens" in (batch.beta2, batch.decay) and optimizer.library != "torch":
        raise ValueError(
            f"batch.beta2 and batch.decay tokens need optimizer.library=torch, and it is {optimizer.library}"
        )


def _seesaw_fits(schedule: ScheduleConfig, length: Quantity, window: WindowConfig) -> None:
    if schedule.kind == "constant":
        raise ValueError(
            "batch.rate seesaw doubles the batch where the rate halves, and schedule.kind constant never halves it; "
            "use cosine or wsd"
        )
    if length.unit == "steps":
        raise ValueError(
            f"batch.rate seesaw needs length in tokens or samples: '{length}' would be longer by every step that grows"
        )
    if length.unit == "run":
        raise ValueError(f"batch.rate seesaw needs length in tokens or samples, and it is '{length}'")
    if schedule.kind == "wsd" and schedule.decay.unit == "steps":
        raise ValueError(
            f"batch.rate seesaw with schedule.decay '{schedule.decay}' is not supported: steps that grow would begin "
            "the decay elsewhere; give a share of the run, tokens or samples"
        )
    lengths = {"length": length, "schedule.warmup": schedule.warmup}
    lengths |= {"schedule.decay": schedule.decay} if schedule.kind == "wsd" else {}
    for name, amount in lengths.items():
        if window.stages and amount.unit in ("tokens", "processed"):
            raise ValueError(
                f"batch.rate seesaw with window.stages needs {name} in samples or as a share of the run, since the "
                f"batch grows at samples and tokens a sample change; it is '{amount}'"
            )


def _objective_fits(objective: ObjectiveConfig, window: WindowConfig, data: DataConfig) -> None:
    if objective.recent is None:
        return
    longest = max(one.recent for one in window.all())
    if objective.recent.rows == "context" and not data.packs:
        if all(one.rows - one.stride < 2 for one in window.all()):
            raise ValueError(
                "objective.recent.rows is context, and no window of the run has 2 rows without a loss; "
                "give a smaller window.stride, or rows: all"
            )
    elif objective.recent.rows == "recent" and longest < 2:
        raise ValueError(
            f"objective.recent is a loss on R, and no window of the run has 2 rows of R (the most: {longest}); "
            "leave it out, or give window.recent"
        )


def _changes_fit(window: WindowConfig, data: DataConfig) -> None:
    if data.packs and len({one.rows for one in window.all()}) > 1:
        raise ValueError(
            f"window.stages with data.packing {data.packing}: all stages need the same number of rows, since documents "
            f"are packed once; given are {[one.rows for one in window.all()]}"
        )
    if window.mix and data.short_recent:
        raise ValueError(
            "data.short_recent together with window.mix is not supported; give the smaller R a share of the mix"
        )


def _stages_fit(window: WindowConfig, batch: BatchConfig) -> None:
    if not window.stages:
        return
    marks = [*(stage.at for stage in batch.stages), *(point.at for point in batch.measured)]
    if any(at.unit != "samples" for at in marks):
        raise ValueError(
            "with window.stages, batch.stages and batch.measured begin at samples, since tokens a sample change"
        )
    largest = max(stage.build().stride for stage in window.stages)
    for stage in window.stages:
        parts = largest // stage.build().stride
        for size in {batch.size, *(later.size for later in batch.stages)}:
            if size % parts:
                raise ValueError(
                    f"window.stages: where the stride is {stage.build().stride}, {parts} windows predict what one "
                    f"does in another stage, so each batch must be a multiple of {parts}, and one is {size}"
                )


def _positions_reach(model: ModelConfig, window: WindowConfig) -> None:
    positions, rows = model.learned_positions, max(one.rows for one in window.all())
    if positions is not None and positions < rows:
        raise ValueError(
            f"model.learned_positions is {positions}, fewer than the window's {rows} rows; give {rows} or more, "
            "or leave it out for rotary positions"
        )


def _packing_fits(data: DataConfig, model: ModelConfig) -> None:
    if not data.packs:
        for name in ("question_weight", "segment_weights"):
            if getattr(data, name):
                raise ValueError(
                    f"data.{name} is of packed rows, and data.packing is {data.packing}; give data.packing: best_fit, "
                    "or leave it out"
                )
        return
    if model.learned_positions is not None:
        raise ValueError(
            f"data.packing {data.packing} with model.learned_positions is not supported: a document's positions "
            "would depend on its place in the row; use rotary positions (leave learned_positions empty)"
        )
    if data.short_recent:
        raise ValueError(
            f"data.packing {data.packing} gives each document an R of its own, so data.short_recent has no meaning; "
            "leave it out"
        )


def _pipeline_fits(parallel: ParallelConfig, model: ModelConfig) -> None:
    stages, zero = parallel.pipeline, parallel.zero
    if stages > 1 and zero != 1:
        raise ValueError(
            f"parallel.pipeline {stages} with parallel.zero {zero} is not supported: the engine's "
            "pipeline refuses 2 and 3, and at 0 it clips by a wrong norm; use parallel.zero=1"
        )
    if stages > model.layers:
        raise ValueError(
            f"parallel.pipeline {stages} is more than model.layers {model.layers}: a stage needs "
            f"a block; use at most {model.layers}"
        )


def _world_fits(parallel: ParallelConfig) -> None:
    world, data = parallel.world, parallel.data
    sample = parallel.tensor * parallel.context * parallel.pipeline
    if world is not None and data is not None and world != sample * data:
        raise ValueError(
            f"parallel.world {world} is not parallel.tensor {parallel.tensor} x "
            f"{f'parallel.context {parallel.context} x ' if parallel.context > 1 else ''}parallel.pipeline "
            f"{parallel.pipeline} x parallel.data {data}; leave one of them out"
        )


def _zero_fits(parallel: ParallelConfig) -> None:
    least = {"none": 0, "optimizer": 1, "all": 3}[parallel.offload]
    if parallel.zero < least:
        raise ValueError(f"parallel.offload {parallel.offload} needs parallel.zero={least} or more")
    if parallel.offload != "none" and parallel.pipeline > 1:
        raise ValueError(
            "parallel.offload with a pipeline is not supported: no test has verified it; use none"
        )
    if parallel.node is not None and parallel.zero != 3:
        raise ValueError(f"parallel.node is ZeRO++ on stage 3, and parallel.zero is {parallel.zero}; use 3")


def _precision_fits(precision: str, parallel: ParallelConfig) -> None:
    if precision == "bf16" and parallel.zero == 0:
        raise ValueError(
            "precision bf16 with parallel.zero 0 is not supported: the engine takes a stray Adam step "
            "at its start; use parallel.zero=1 (the table in docs/run.md says what works)"
        )
