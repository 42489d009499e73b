"""The window [R | C]: the one object that says who sees whom and what is predicted.

A window has ``recent`` rows R, then ``causal`` rows C. It reads ``rows + 1``
tokens of a stream: row i holds token i and predicts token i + 1. Every row of R
sees all of R (and so its own target: no loss there, ever); a row of C sees all
of R and C up to itself. The last ``stride`` rows of C bear loss, and the next
window starts ``stride`` tokens later.

    row      0 ............ r-1 | r ........ n-s .... n-1
             R: sees all of R   | C: sees R and C up to itself
                                |            bears loss

Masks, kernels, losses, samplers and FLOP counts read this object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class Window:
    """``recent`` r >= 0 rows of R, ``causal`` c >= 1 rows of C, ``stride`` 1 <= s <= c.

    Raises:
        UserError: where the three numbers make no window.
    """

    recent: int
    causal: int
    stride: int

    def __post_init__(self) -> None:
        if self.recent < 0:
            raise UserError(f"window: recent is {self.recent}; it must be 0 (causal) or more")
        if self.causal < 1:
            raise UserError(f"window: causal is {self.causal}; it must be 1 or more")
        if not 1 <= self.stride <= self.causal:
            raise UserError(
                f"window: stride is {self.stride}; it is the number of predictions a window makes, "
                f"so it must lie between 1 and causal ({self.causal})"
            )

    # ---- presets

    @classmethod
    def plain(cls, rows: int) -> Window:
        """The usual causal window: every row predicts, windows do not overlap."""
        return cls(recent=0, causal=rows, stride=rows)

    @classmethod
    def masked_head(cls, rows: int, head: int) -> Window:
        """Causal, but the first ``head`` rows are context only (the talk's 2000/200)."""
        return cls(recent=0, causal=rows, stride=rows - head)

    @classmethod
    def split(cls, recent: int, causal: int) -> Window:
        """[R | C] with every row of C predicted (the talk's 512/512)."""
        return cls(recent=recent, causal=causal, stride=causal)

    # ---- rows and tokens

    @property
    def rows(self) -> int:
        """n = r + c."""
        return self.recent + self.causal

    @property
    def tokens(self) -> int:
        """n + 1: the last row's target is read too."""
        return self.rows + 1

    @property
    def loss_rows(self) -> slice:
        """The rows n-s .. n-1, that bear loss."""
        return slice(self.rows - self.stride, self.rows)

    @property
    def first_target(self) -> int:
        """n - s + 1: the first token of a corpus that is ever a target."""
        return self.rows - self.stride + 1

    # ---- windows of a text that grows

    def opening(self, length: int, refresh: int | None = None) -> tuple[int, int]:
        """With how many of its newest tokens a text of ``length`` begins a window, and how many that one predicts.

        The last of them starts on row n - f, where f is ``refresh``: the stride unless given, so that tokens come
        from rows that bore loss. A window without R gains nothing by moving, so it does when it is full; a plain
        causal one (s = n) would then forget everything, so it moves by half.

        Raises:
            UserError: for a refresh beyond the stride.
        """
        if refresh is None:
            refresh = max(1, self.rows // 2) if self.stride == self.rows else self.stride
        elif refresh > self.stride:
            raise UserError(
                f"refresh is {refresh}, but a window {self} has only {self.stride} rows that learned to "
                "predict; it must be no more"
            )
        begun = min(length, self.rows - refresh + 1)
        return begun, refresh if self.recent else self.rows - begun + 1

    # ---- windows of a corpus

    def count(self, tokens: int) -> int:
        """How many windows a corpus of ``tokens`` tokens has: 0 where it is too short."""
        if tokens < self.tokens:
            return 0
        return (tokens - self.tokens) // self.stride + 1

    def starts(self, tokens: int) -> range:
        """The first token of each window of a corpus of ``tokens`` tokens."""
        return range(0, self.count(tokens) * self.stride, self.stride)

    # ---- the mask and its cost

    def allow(self, query: Any, key: Any) -> Any:
        """Whether row ``query`` sees row ``key``: ints or arrays that broadcast."""
        return allow(query, key, self.recent)

    def pairs(self, sliding: int | None = None) -> int:
        """Allowed (query, key) pairs: r*r + c*r + c*(c+1)/2, less those that lie ``sliding`` rows or more back."""
        return pairs(self.rows, self.recent, sliding)

    def attention_flops(self, heads: int, head_dim: int, narrowing: Narrowing | None = None) -> int:
        """Forward FLOPs of one layer's scores and weighted sum: 4 * d * pairs a head."""
        pairs = self.pairs() if narrowing is None else narrowing.pairs(self)
        return round(4 * heads * head_dim * pairs)

    def __str__(self) -> str:
        return f"[R {self.recent} | C {self.causal}] stride {self.stride}"


@dataclass(frozen=True, slots=True)
class Narrowing:
    """How a model's attention sees less than the window allows.

    Attributes:
        sliding: a row sees no key that lies so many rows or more before it; None: any.
        causal: the share of query heads that see no key behind their row, in R too.
    """

    sliding: int | None = None
    causal: float = 0.0

    def pairs(self, window: Window) -> float:
        """Allowed (query, key) pairs of a head, on average over the heads."""
        rows, sliding = window.rows, self.sliding
        both_ways, causal = pairs(rows, window.recent, sliding), pairs(rows, 0, sliding)
        return (1 - self.causal) * both_ways + self.causal * causal


WIDE = Narrowing()
"""No narrowing: a row sees all that the window allows."""


def allow(query: Any, key: Any, recent: Any) -> Any:
    """The mask, for any ``recent``: ``key < recent or key <= query``, on anything that broadcasts."""
    return (key < recent) | (key <= query)


def pairs(rows: int, recent: int, sliding: int | None = None) -> int:
    """Allowed pairs of a window of ``rows`` rows whose first ``recent`` are R.

    Args:
        sliding: a row sees no key that lies so many rows or more before it; None: any.
    """
    causal = rows - recent
    beyond = 0 if sliding is None else max(0, rows - sliding)  # rows that do not see the first key
    return recent * recent + causal * recent + causal * (causal + 1) // 2 - beyond * (beyond + 1) // 2
