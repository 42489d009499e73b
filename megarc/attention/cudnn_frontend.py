"""The row split on cuDNN through its own frontend, where it is installed: an option, by name.

    pip install nvidia-cudnn-frontend

Unlike the cuDNN attention inside torch it takes a causal mask aligned to the bottom
right, so that nothing is merged. A graph is built once for each set of shapes and
strides. Masks that differ between samples go to our own kernel (``triton_fused.py``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from megarc.attention import cuda_requirements, row_split, triton_fused
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import operator
from megarc.attention.mask import Mask

NAME = "cudnn_frontend"
FEWER_ROWS = True  # by our own kernel

Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Sizes, strides and dtype of a tensor."""


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if not installed():
        return "cuDNN's frontend is not installed (pip install nvidia-cudnn-frontend)"
    return cuda_requirements.refuse(device, dtype, head_dim, capability=(9, 0), largest=128, multiple=8)


def installed() -> bool:
    """Whether the package is here; looks without importing it."""
    return importlib.util.find_spec("cudnn") is not None


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    single = mask.recent == 1 or call.rows == 1  # cuDNN takes no part of a single key
    run = _attend if mask.uniform and not single else triton_fused.attend
    return run(call, mask)


class FrontendFlash:
    """One flash attention as the row split takes it."""

    def forward(self, call: Inputs, causal: bool) -> tuple[Tensor, Tensor]:
        q = call.q
        out, lse = torch.empty_like(q), q.new_empty((*q.shape[:3], 1), dtype=torch.float32)
        tensors = (q, call.k, call.v, out, lse)
        _execute(forward_graph(_layouts(tensors), causal, call.scale, q.device), tensors, q.device)
        return out, lse.squeeze(-1)

    def backward(self, call: Inputs, outputs: Outputs, causal: bool) -> Grads:
        given = (call.q, call.k, call.v)
        grads = (torch.empty_like(call.q), torch.empty_like(call.k), torch.empty_like(call.v))
        lse = outputs.lse.contiguous().unsqueeze(-1)
        tensors = (*given, outputs.out, outputs.grad, lse, *grads)
        device = call.q.device
        _execute(backward_graph(_layouts(tensors), causal, call.scale, device), tensors, device)
        return grads


@cache
def forward_graph(layouts: tuple[Layout, ...], causal: bool, scale: float, device: torch.device) -> Any:
    """``(graph, its tensors)`` for q, k, v, out, lse, ready to run."""
    graph, (q, k, v) = _new_graph(layouts[:3], device)
    out, lse = graph.sdpa(
        name="attend", q=q, k=k, v=v, attn_scale=scale, generate_stats=True, **_masked(causal)
    )
    _outputs((out, lse), layouts[3:])
    _build(graph)
    return graph, (q, k, v, out, lse)


@cache
def backward_graph(layouts: tuple[Layout, ...], causal: bool, scale: float, device: torch.device) -> Any:
    """``(graph, its tensors)`` for q, k, v, out, grad, lse and the gradients of q, k, v."""
    graph, (q, k, v, out, grad, lse) = _new_graph(layouts[:6], device)
    grads = graph.sdpa_backward(
        name="differentiate", q=q, k=k, v=v, o=out, dO=grad, stats=lse, attn_scale=scale, **_masked(causal)
    )
    _outputs(grads, layouts[6:])
    _build(graph)
    return graph, (q, k, v, out, grad, lse, *grads)


def _forward(call: Inputs, mask: Mask) -> tuple[Tensor, Tensor]:
    return row_split.forward(FrontendFlash(), call, mask.recent)


def _backward(call: Inputs, mask: Mask, outputs: Outputs) -> Grads:
    return row_split.backward(FrontendFlash(), call, outputs, mask.recent)


_attend = operator("cudnn_frontend", _forward, _backward)


# ---- the frontend's graphs


def _new_graph(inputs: tuple[Layout, ...], device: torch.device) -> tuple[Any, list[Any]]:
    import cudnn

    half = _kind(inputs[0][2])
    wide = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=half, intermediate_data_type=wide, compute_data_type=wide, handle=_handle(device)
    )
    return graph, [
        graph.tensor(dim=list(sizes), stride=list(strides), data_type=_kind(dtype))
        for sizes, strides, dtype in inputs
    ]


def _outputs(tensors: Sequence[Any], layouts: tuple[Layout, ...]) -> None:
    for tensor, (sizes, strides, dtype) in zip(tensors, layouts, strict=True):
        tensor.set_output(True).set_dim(list(sizes)).set_stride(list(strides)).set_data_type(_kind(dtype))


def _build(graph: Any) -> None:
    import cudnn

    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    graph.check_support()
    graph.build_plans()


def _execute(built: Any, tensors: tuple[Tensor, ...], device: torch.device) -> None:
    import cudnn

    graph, places = built
    handle = _handle(device)
    cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream(device).cuda_stream)
    workspace = torch.empty(graph.get_workspace_size(), device=device, dtype=torch.uint8)
    graph.execute(dict(zip(places, tensors, strict=True)), workspace, handle=handle)


@cache
def _handle(device: torch.device) -> Any:
    import cudnn

    with torch.cuda.device(device):
        return cudnn.create_handle()


def _kind(dtype: torch.dtype) -> Any:
    import cudnn

    kinds = {torch.bfloat16: "BFLOAT16", torch.float16: "HALF", torch.float32: "FLOAT"}
    return getattr(cudnn.data_type, kinds[dtype])


def _masked(causal: bool) -> dict[str, bool]:
    return {"use_causal_mask_bottom_right": True} if causal else {}


def _layouts(tensors: tuple[Tensor, ...]) -> tuple[Layout, ...]:
    return tuple((tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in tensors)
