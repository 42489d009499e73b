"""Uses [R | C] attention as a function in a model of your own, without the rest of megarc.

python examples/attention_alone.py
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from megarc.attention import attend


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, recent: int) -> torch.Tensor:
    """The same by a dense mask: row q sees row k where ``k < recent or k <= q``."""
    row = torch.arange(q.shape[2])
    allowed = (row[None, :] < recent) | (row[None, :] <= row[:, None])
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)


def main() -> float:
    """Compares values and gradients with the dense mask; returns the largest difference."""
    torch.manual_seed(0)
    batch, heads, kv_heads, rows, width, recent = 2, 8, 2, 256, 32, 128
    q = torch.randn(batch, heads, rows, width, requires_grad=True)
    k = torch.randn(batch, kv_heads, rows, width, requires_grad=True)
    v = torch.randn(batch, kv_heads, rows, width, requires_grad=True)

    ours, theirs = attend(q, k, v, recent), dense(q, k, v, recent)
    weights = torch.randn_like(ours)
    gradients = zip(
        torch.autograd.grad((ours * weights).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weights).sum(), (q, k, v)),
        strict=True,
    )
    worst = max(float((a - b).detach().abs().max()) for a, b in [(ours, theirs), *gradients])
    print(f"[R {recent} | C {rows - recent}]: largest difference from the dense mask {worst:.1e}")
    return worst


if __name__ == "__main__":
    main()
