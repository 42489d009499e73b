"""A model in use: scored on text, and writing text.

In: a ``Transformer`` in evaluation mode, tokens. Out: exact cross-entropies,
sampled tokens, a model in one file.
"""

from megarc.inference.answers import answers
from megarc.inference.decoder import Decoder
from megarc.inference.evaluate import evaluate, loss_by_context, window_losses
from megarc.inference.export_layouts import Layout
from megarc.inference.generate import Writing, check_prompt, continuations, generate, uniforms, write
from megarc.inference.likelihood import Likelihood, likelihoods
from megarc.inference.loop import Loop
from megarc.inference.model_file import export, load_exported
from megarc.inference.prompts import Answers, Prompt, digest, read_prompts
from megarc.inference.ranks import ranks_in_use
from megarc.inference.recent_probe import Change, Measured, Probe, probe, probe_window
from megarc.inference.sample_losses import SampleLosses, sample_losses
from megarc.inference.sampling import Sampling, look_up
from megarc.inference.score import Score
from megarc.inference.stop_strings import StopStrings

__all__ = [
    "Answers",
    "Change",
    "Decoder",
    "Layout",
    "Likelihood",
    "Loop",
    "Measured",
    "Probe",
    "Prompt",
    "SampleLosses",
    "Sampling",
    "Score",
    "StopStrings",
    "Writing",
    "answers",
    "check_prompt",
    "continuations",
    "digest",
    "evaluate",
    "export",
    "generate",
    "likelihoods",
    "load_exported",
    "look_up",
    "loss_by_context",
    "probe",
    "probe_window",
    "ranks_in_use",
    "read_prompts",
    "sample_losses",
    "uniforms",
    "window_losses",
    "write",
]
