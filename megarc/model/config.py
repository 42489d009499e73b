"""The keys of a model, and of how it is computed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, model_validator

from megarc.config import Config, key
from megarc.model.experts_config import ExpertsConfig
from megarc.window import Narrowing

Recompute = Literal["none", "selective", "full"]


class RopeScaling(Config):
    """Rotary wavelengths stretched, so that a model reads texts longer than those that it learned on."""

    kind: Literal["linear", "llama3", "yarn"] = key(
        ...,
        "linear: all wavelengths times factor; llama3, yarn: only the long ones, by how often they turn within "
        "original_rows",
    )
    factor: float = key(..., "the longest wavelengths are multiplied by it", ge=1)
    original_rows: int = key(8192, "rows that the model learned on, for llama3 and yarn", ge=1)
    low_turns: float = key(1.0, "wavelengths that turn less often are multiplied by factor", gt=0)
    high_turns: float = key(32.0, "wavelengths that turn more often stay as they are", gt=0)
    attention_factor: float | None = key(
        None, "yarn: queries and keys are multiplied by it; null: 0.1 ln(factor) + 1", gt=0
    )
    whole_numbers: bool = key(True, "yarn: its ramp begins and ends at whole numbers of frequencies")

    @model_validator(mode="after")
    def _turns_are_ordered(self) -> RopeScaling:
        if self.kind != "linear" and self.low_turns >= self.high_turns:
            raise ValueError(f"low_turns ({self.low_turns}) must be less than high_turns ({self.high_turns})")
        if self.attention_factor is not None and self.kind != "yarn":
            raise ValueError(f"attention_factor belongs to yarn, and kind is {self.kind}; leave it out")
        return self

    @property
    def magnitude(self) -> float:
        """By what queries and keys are multiplied, with the default resolved."""
        if self.kind != "yarn":
            return 1.0
        return 0.1 * math.log(self.factor) + 1 if self.attention_factor is None else self.attention_factor


def _fraction(value: Any) -> Any:
    try:
        return Fraction(value).limit_denominator(1 << 16) if isinstance(value, float) else Fraction(value)
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a share; write 1/4, for instance") from None


Share = Annotated[Fraction, BeforeValidator(_fraction), PlainSerializer(str)]
"""A key that holds a part of a whole, such as ``1/4``."""

Parametrization = Literal["standard", "mup", "completep"]

MixerName = Literal["attention", "ssm", "ssm_attention", "crf"]


def _pattern(value: Any) -> Any:
    """``"ssm:3 attention:1"`` as a list of names, one for each layer of the pattern."""
    if not isinstance(value, str):
        return value
    names: list[str] = []
    for piece in value.split():
        name, _, count = piece.partition(":")
        if count and not (count.isdecimal() and int(count)):
            raise ValueError(f"'{piece}' is not part of a pattern; write ssm:3 attention:1, for instance")
        names += [name] * int(count or 1)
    return names


Mixers = Annotated[list[MixerName], BeforeValidator(_pattern)]
"""A list of mixers, or a pattern such as ``ssm:3 attention:1``."""


class ModelConfig(Config):
    """A pre-norm decoder: RMSNorm, SwiGLU, grouped-query attention, rotary (or learned) positions."""

    layers: int = key(4, "blocks", ge=1, le=100_000)
    hidden: int = key(128, "width of the residual stream", ge=1)
    heads: int = key(4, "query heads", ge=1)
    kv_heads: int | None = key(None, "key and value heads; null: as many as heads", ge=1)
    head_dim: int | None = key(None, "width of a head; null: hidden / heads", ge=2)
    ffn: int | list[int] | None = key(
        None,
        "inner width of the feed-forward, or a list with each layer's; null: 8/3 hidden, up to a multiple of 64",
    )
    nested: list[Share] | None = key(
        None,
        "parts of ffn that are feed-forwards of their own, [1/8, 1/4, 1/2, 1]; null: none (docs/nested.md)",
    )
    experts: ExpertsConfig | None = key(
        None, "a mixture of experts in place of the dense feed-forward; null: none (docs/experts.md)"
    )
    vocabulary: int | None = key(None, "token ids; null: what the corpus's tokenizer has", ge=2)
    vocabulary_multiple: int = key(128, "the vocabulary is padded to a multiple of it", ge=1)
    tied: bool = key(True, "head and embedding share one matrix")
    mixers: Mixers = key(
        ["attention"],
        "what moves information between rows, by layer: a list, or a pattern such as 'ssm:3 attention:1'; a shorter "
        "list repeats (docs/mixers.md)",
    )
    crf_states: int = key(16, "hidden states of a head of the mixer crf", ge=2, le=64)
    crf_rank: int = key(8, "rank of its learned transitions between states", ge=1)
    crf_transitions: int = key(
        1,
        "learned transitions of a head of the mixer crf; each token mixes them, so that the next state depends on "
        "token and state. 1: the same for every token",
        ge=1,
        le=8,
    )
    qk_norm: bool = key(False, "RMSNorm on queries and keys; qk_norm_over says over what")
    qk_norm_over: Literal["head", "all"] = key(
        "head", "qk_norm normalises each head (as Qwen 3 does), or all heads together (as OLMo 2 does)"
    )
    attention_bias: Literal["none", "qkv", "all"] = key(
        "none", "a bias on queries, keys and values (as Qwen 2 has), or on the output too"
    )
    norm_place: Literal["before", "after"] = key(
        "before", "a norm before attention and feed-forward, or after each, before it is added (OLMo 2)"
    )
    rope_base: float = key(10000.0, "base of the rotary wavelengths", gt=1)
    rope_scaling: RopeScaling | None = key(
        None, "stretches the rotary wavelengths; null: they are as base says"
    )
    rope_skip_every: int | None = key(
        None, "every k-th layer has no positions (k is 4 in SmolLM 3); null: all layers have them", ge=1
    )
    learned_positions: int | None = key(
        None, "number of learned position vectors, one a row, instead of rotary positions; null: rotary", ge=1
    )
    sliding_window: int | None = key(
        None,
        "a row sees no key that lies this many rows or more before it; null: no limit",
        ge=1,
    )
    causal_heads: int = key(
        0,
        "number of query heads, the first ones, that see R causally; the others see R both ways (docs/window.md)",
        ge=0,
    )
    logit_cap: float | None = key(
        None, "soft cap of logits: cap * tanh(logit / cap) (Gemma 2, 2408.00118, section 2); null: none", gt=0
    )
    norm_epsilon: float = key(1e-5, "added under RMSNorm's root", gt=0)
    initial_std: float = key(0.02, "standard deviation of initial weights; see docs/model.md", gt=0)
    parametrization: Parametrization = key(
        "standard",
        "keeps the best learning rate constant: mup over widths, completep over depths too "
        "(docs/transfer.md); both need base_hidden",
    )
    base_hidden: int | None = key(None, "width at which the keys were tuned; standard does not read it", ge=1)
    base_layers: int | None = key(None, "depth at which they were tuned; completep alone reads it", ge=1)
    base_head_dim: int | None = key(
        None, "head_dim at which they were tuned, where it grows with the width; null: this model's", ge=2
    )

    @model_validator(mode="after")
    def _bases_are_there(self) -> ModelConfig:
        needed = {"standard": (), "mup": ("base_hidden",), "completep": ("base_hidden", "base_layers")}
        missing = [name for name in needed[self.parametrization] if getattr(self, name) is None]
        if missing:
            own = ", ".join(f"model.{name}={getattr(self, name.removeprefix('base_'))}" for name in missing)
            raise ValueError(
                f"parametrization {self.parametrization} needs {' and '.join(missing)}: the width and depth at which "
                f"the learning rate was tuned. Were that this model's own: {own}"
            )
        return self

    @model_validator(mode="after")
    def _heads_are_causal_by_group(self) -> ModelConfig:
        causal, each = self.causal_heads, max(1, self.heads // self.groups)  # more groups: refused elsewhere
        if causal > self.heads:
            raise ValueError(
                f"causal_heads is {causal}, more than heads {self.heads}; give at most {self.heads}"
            )
        if causal % each:
            raise ValueError(
                f"causal_heads is {causal}, but {each} query heads share a key head (heads {self.heads}, kv_heads "
                f"{self.groups}) and see alike; give a multiple of {each}"
            )
        if causal and set(self.mixers) != {"attention"}:
            raise ValueError(
                f"causal_heads {causal} is for models whose layers are all attention; mixers is "
                f"{', '.join(self.mixers)}; leave causal_heads out"
            )
        return self

    @model_validator(mode="after")
    def _something_slides(self) -> ModelConfig:
        if self.sliding_window is not None and (
            "ssm_attention" in self.mixers or "attention" not in self.mixers
        ):
            raise ValueError(
                f"sliding_window {self.sliding_window} is for layers with attention, and ssm_attention does not slide; "
                f"mixers is {', '.join(self.mixers)}; leave sliding_window out"
            )
        return self

    @model_validator(mode="after")
    def _mixers_repeat(self) -> ModelConfig:
        if not self.mixers or self.layers % len(self.mixers):
            raise ValueError(
                f"mixers has {len(self.mixers)} entries, which do not divide the {self.layers} layers; give one for "
                "each layer, or a pattern that repeats"
            )
        return self

    @model_validator(mode="after")
    def _inner_widths_are_some(self) -> ModelConfig:
        widths = self.ffn if isinstance(self.ffn, list) else [self.width_of_ffn]
        if isinstance(self.ffn, list) and len(widths) != self.layers:
            raise ValueError(
                f"ffn has {len(widths)} widths for {self.layers} layers; give one, or one for each layer"
            )
        if min(widths) < 1:
            raise ValueError(f"ffn is {self.ffn}; a width is 1 at least")
        return self

    @model_validator(mode="after")
    def _widths_nest(self) -> ModelConfig:
        if self.nested is None:
            return self
        if (
            self.nested != sorted(set(self.nested))
            or not self.nested
            or self.nested[0] <= 0
            or self.nested[-1] != 1
        ):
            given = ", ".join(map(str, self.nested))
            raise ValueError(
                f"nested is [{given}]; give shares that rise and end with 1, such as [1/4, 1/2, 1]"
            )
        if isinstance(self.ffn, list):
            raise ValueError("nested with a list of ffn is not supported; give one ffn")
        group, ffn = self.neuron_group, self.width_of_ffn
        if ffn % group:
            near = " or ".join(str(count * group) for count in (ffn // group, ffn // group + 1) if count)
            raise ValueError(
                f"nested shares have the denominator {group}, which does not divide ffn {ffn}; use ffn {near}"
            )
        return self

    @model_validator(mode="after")
    def _some_layer_has_experts(self) -> ModelConfig:
        experts = self.experts
        if experts is None:
            return self
        if self.nested is not None:
            raise ValueError("nested with experts is not supported: an expert has one width; leave one out")
        if not any(experts.at(layer) for layer in range(self.layers)) and self.layers:
            raise ValueError(
                f"experts.every {experts.every} and experts.dense_first {experts.dense_first} leave none of the "
                f"{self.layers} layers with experts; use every of at most {self.layers} and dense_first below it"
            )
        return self

    @model_validator(mode="after")
    def _shapes_agree(self) -> ModelConfig:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(
                f"hidden ({self.hidden}) is not a multiple of heads ({self.heads}); change one, or give head_dim"
            )
        if self.width_of_head % 2:
            raise ValueError(f"head_dim is {self.width_of_head}; rotary positions need an even number")
        if self.heads % self.groups:
            raise ValueError(
                f"heads ({self.heads}) is not a multiple of kv_heads ({self.groups}); use a divisor"
            )
        if self.qk_norm_over == "all" and not self.qk_norm:
            raise ValueError("qk_norm_over is 'all', but qk_norm is false; set qk_norm, or leave it out")
        rotary = self.rope_scaling is not None or self.rope_skip_every is not None
        if self.learned_positions is not None and rotary:
            raise ValueError(
                "rope_scaling and rope_skip_every change rotary positions, and learned_positions takes their "
                "place; leave one of them out"
            )
        return self

    @property
    def narrowing(self) -> Narrowing:
        """How attention sees less than the window allows."""
        return Narrowing(self.sliding_window, self.causal_heads / self.heads)

    @property
    def width_of_head(self) -> int:
        """d, with the default resolved."""
        return self.head_dim if self.head_dim is not None else self.hidden // self.heads

    @property
    def groups(self) -> int:
        """Key and value heads, with the default resolved."""
        return self.kv_heads if self.kv_heads is not None else self.heads

    @property
    def width_of_ffn(self) -> int:
        """Inner width of the feed-forward, with the default resolved; the largest where layers differ."""
        if isinstance(self.ffn, list):
            return max(self.ffn, default=0)
        return self.ffn if self.ffn is not None else -(-(8 * self.hidden // 3) // 64) * 64

    @property
    def neuron_group(self) -> int:
        """Neurons of a group, of which each nested width has a part: the shares' common denominator."""
        return math.lcm(*(share.denominator for share in self.nested or [Fraction(1)]))

    @property
    def width_of_expert(self) -> int:
        """Inner width of one expert, with the default resolved."""
        assert self.experts is not None
        if self.experts.width is not None:
            return self.experts.width
        used = self.experts.active + self.experts.shared
        return -(-self.width_of_ffn // (8 * used)) * 8

    def of_layer(self, layer: int) -> ModelConfig:
        """The same where all layers are alike; else with this layer's own width, mixer and feed-forward."""
        changed: dict[str, Any] = {"ffn": self.ffn[layer]} if isinstance(self.ffn, list) else {}
        if len(self.mixers) > 1:
            changed["mixers"] = [self.mixer(layer)]
        if self.experts is not None:
            changed["experts"] = self.experts.on_every_layer if self.experts.at(layer) else None
        return self.model_copy(update=changed) if changed else self

    def mixer(self, layer: int) -> MixerName:
        """The name of the mixer of a layer."""
        return self.mixers[layer % len(self.mixers)]

    def kind(self, layer: int) -> str:
        """What a layer has in common with others: its mixer, and whether it has experts."""
        sparse = self.experts is not None and self.experts.at(layer)
        return f"{self.mixer(layer)}{' with experts' * sparse}"

    def kinds(self) -> dict[str, ModelConfig]:
        """A model of one layer for each kind that this one has; where feed-forwards differ, of the widest."""
        found: dict[str, ModelConfig] = {}
        for layer in range(self.layers):
            if (name := self.kind(layer)) not in found:
                bare = {"layers": 1, "ffn": self.width_of_ffn, "mixers": [self.mixer(layer)]}
                found[name] = self.of_layer(layer).model_copy(update=bare)
        return found

    @property
    def tokens(self) -> int:
        """The vocabulary, which must be known by now."""
        assert self.vocabulary is not None, "the run resolves model.vocabulary before it builds"
        return self.vocabulary

    @property
    def padded_vocabulary(self) -> int:
        """Rows of embedding and head: the vocabulary up to its multiple."""
        return -(-self.tokens // self.vocabulary_multiple) * self.vocabulary_multiple


class ExecutionConfig(Config):
    """How the same numbers are computed: none of these changes what is learned."""

    attention: str = key("auto", "attention engine; auto picks by device, type and width", circumstance=True)
    compile: bool = key(
        False,
        "torch.compile each block and the loss; where that fails, the run says so and runs eagerly",
        circumstance=True,
    )
    head_rows: int | None = key(
        None,
        "loss rows whose logits exist at once; null: as many as make 16M logits",
        circumstance=True,
        ge=1,
    )
    fp8: bool = key(False, "the blocks' matrix products in fp8 (Ada, Hopper or later)", circumstance=True)
    fp8_scales: Literal["row", "tensor"] = key(
        "row",
        "with fp8: one scale for each row of an operand, or one for the whole, which is coarser and costs less",
        circumstance=True,
    )
    recurrence: Literal["torch", "fla"] = key(
        "torch",
        "what runs the recurrences of the mixers ssm and ssm_attention: torch, or flash-linear-attention's kernels "
        "on CUDA",
        circumstance=True,
    )
    recompute: Recompute = key(
        "none",
        "selective: keep matrix products and attention, compute the rest of a block again; full: keep its input",
        circumstance=True,
    )
    recompute_every: int = key(
        1, "one of this many blocks is computed again, the others keep all activations; 1: every block",
        circumstance=True, ge=1,
    )  # fmt: skip
