"""Layers to a language model.

In: token ids [batch, rows], how many rows are R, optional document ids. Out:
losses or logits on the loss rows. Initial values and costs are functions
of the configuration alone.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.model.activation_memory import (
        Allocated,
        FakePass,
        Footprint,
        default_dtype,
        fake_pass,
        footprint,
        footprint_of,
        ways_of,
    )
    from megarc.model.block_part import Split
    from megarc.model.compiling import no_compiler
    from megarc.model.config import ExecutionConfig, ModelConfig
    from megarc.model.cost import Cost, block_parameters, cost_of, loss_work_of
    from megarc.model.feed_forward.experts import Router, Tally, start_tallies
    from megarc.model.folding import as_standard
    from megarc.model.fp8 import no_fp8
    from megarc.model.initialization import initial_values, initialise
    from megarc.model.loss import Head, Loss, head_loss, scored, weighted_sum
    from megarc.model.mixers import check_recurrence_kernels
    from megarc.model.nesting import kept_of, narrowed
    from megarc.model.parameter_record import (
        Record,
        expert_group_name,
        named_state,
        named_values,
        record_of,
    )
    from megarc.model.parametrization import Factors, adam_factors, forward_scales, initial_std, muon_factors
    from megarc.model.pipeline import (
        Beside,
        Layer,
        build_pipeline,
        check_stage_experts,
        layers,
        stage_bounds,
    )
    from megarc.model.recompute import is_costly
    from megarc.model.transformer import Transformer, pick_rows, splits

open_when_used(__name__, __file__)

__all__ = [
    "Allocated",
    "Beside",
    "Cost",
    "ExecutionConfig",
    "Factors",
    "FakePass",
    "Footprint",
    "Head",
    "Layer",
    "Loss",
    "ModelConfig",
    "Record",
    "Router",
    "Split",
    "Tally",
    "Transformer",
    "adam_factors",
    "as_standard",
    "block_parameters",
    "build_pipeline",
    "check_recurrence_kernels",
    "check_stage_experts",
    "cost_of",
    "default_dtype",
    "expert_group_name",
    "fake_pass",
    "footprint",
    "footprint_of",
    "forward_scales",
    "head_loss",
    "initial_std",
    "initial_values",
    "initialise",
    "is_costly",
    "kept_of",
    "layers",
    "loss_work_of",
    "muon_factors",
    "named_state",
    "named_values",
    "narrowed",
    "no_compiler",
    "no_fp8",
    "pick_rows",
    "record_of",
    "scored",
    "splits",
    "stage_bounds",
    "start_tallies",
    "ways_of",
    "weighted_sum",
]
