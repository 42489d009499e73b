"""A config.json of Hugging Face's layout as keys of our model; what we cannot be exactly is refused by its name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megarc.config import build
from megarc.errors import UserError, kind_of
from megarc.inference.huggingface.families import FAMILIES, Family, words
from megarc.model import ModelConfig

_SAYS_NOTHING = words(
    """
    architectures model_type torch_dtype dtype transformers_version use_cache initializer_range
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    max_position_embeddings max_sequence_length _name_or_path name_or_path _attn_implementation auto_map
    megarc prefix_lm keys_to_ignore_at_inference id2label label2id return_dict output_attentions
    output_hidden_states problem_type chunk_size_feed_forward tokenizer_class task_specific_params
    is_encoder_decoder attn_implementation is_llama_config
    """
)
"""Keys that do not change what the layers compute."""

_READ = words(
    """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    head_dim rms_norm_eps tie_word_embeddings rope_parameters rope_scaling rope_theta hidden_act
    attention_bias attention_dropout pretraining_tp mlp_bias
    """
)
"""Keys of all families that are looked at below, beside a family's own."""

_KINDS: Mapping[str, type] = {
    "architectures": list,
    "layer_types": list,
    "no_rope_layers": list,
    "mlp_only_layers": list,
    "rope_parameters": dict,
    "rope_scaling": dict,
}
"""Keys that hold more than one value, and how JSON writes those."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model of Hugging Face's layout: its family, our keys for it, and the rows that it says it can read."""

    family: Family
    model: ModelConfig
    rows: int
    notes: tuple[str, ...] = ()


def read_config(folder: Path) -> Foreign:
    """What ``folder``/config.json says.

    Raises:
        UserError: where there is none, it is of another family, or says what we cannot be: with the key's name.
    """
    place = folder / "config.json"
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no config.json: it is not a folder of a Hugging Face model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{place} cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise UserError(f"{place} is not a config.json of a model: it holds {kind_of(facts)}")
    for name, kind in _KINDS.items():
        if not isinstance(facts.get(name), kind | None):
            what = "a list" if kind is list else "keys and values"
            raise UserError(f"{place}: {name} is {facts[name]!r}; it must be {what}, or null")
    reader = _Reader(facts, place, _family(facts, place))
    reader.refuse()
    model = build(ModelConfig, reader.keys(), str(place))
    return Foreign(reader.family, model, reader.number("max_position_embeddings", 2048), tuple(reader.notes))


def _family(facts: Mapping[str, Any], place: Path) -> Family:
    family = FAMILIES.get(str(facts.get("model_type")))
    architectures = facts.get("architectures") or []
    known = ", ".join(FAMILIES)
    if family is None:
        raise UserError(
            f"{place}: model_type is {facts.get('model_type')!r}; megarc's layers can be these: {known}"
        )
    # Older files of the same class spell its name otherwise.
    spelt = {family.architecture.lower(), "megarcforcausallm"}
    if architectures and not any(str(name).lower() in spelt for name in architectures):
        raise UserError(
            f"{place}: architectures is {architectures}; megarc reads {family.architecture} of that model_type"
        )
    return family


class _Reader:
    """One config.json, key by key."""

    def __init__(self, facts: dict[str, Any], place: Path, family: Family) -> None:
        self.facts, self.place, self.family = facts, place, family
        self.notes: list[str] = []

    def wrong(self, name: str, why: str) -> UserError:
        """The error that names a key."""
        return UserError(f"{self.place}: {name} is {self.facts.get(name)!r}; {why}")

    def get(self, name: str) -> Any:
        """A key, or what the family takes where it is missing; None where neither says it."""
        return self.facts[name] if name in self.facts else self.family.defaults.get(name)

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
            raise self.wrong(name, "it must be a whole number of 1 or more, below 2^31")
        return value

    def real(self, name: str, value: Any) -> float:
        """``value``, which stands in the key ``name``, as a number."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.wrong(name, f"{value!r} in it must be a number")
        return float(value)

    def refuse(self) -> None:
        """Keys that say what our layers are not, and keys that we do not know."""
        wanted = {"hidden_act": ("silu", "swish"), "attention_dropout": (0,), "pretraining_tp": (1,)}
        for name, values in wanted.items():
            if self.facts.get(name, values[0]) not in (*values, None):
                raise self.wrong(name, f"megarc's layers have {values[0]} only")
        if self.facts.get("mlp_bias"):
            raise self.wrong("mlp_bias", "megarc's feed-forward has no biases")
        sliding = self.get("sliding_window") is not None  # where a Mistral does not say it, it has one
        if sliding and self.facts.get("use_sliding_window", self.family.model_type == "mistral"):
            raise self.wrong(
                "sliding_window",
                "importing it is not supported. If all windows are that short, it changes nothing; set it to null in a "
                "copy of config.json (model.sliding_window gives the new run one)",
            )
        if other := [one for one in self.facts.get("layer_types") or () if one != "full_attention"]:
            raise self.wrong(
                "layer_types", f"megarc's layers have full attention, not {', '.join(map(str, other))}"
            )
        if self.facts.get("recent"):
            raise self.wrong(
                "recent",
                "megarc exported this model with an R, and an import is causal: another model. Continue the run that "
                "it was made from, or begin from that run with start_from",
            )
        known = _SAYS_NOTHING | _READ | set(self.family.keys)
        for name, value in self.facts.items():
            if name not in known and value not in (None, False, [], {}):
                raise self.wrong(name, f"megarc does not know this key of a {self.family.model_type} model")

    def keys(self) -> dict[str, Any]:
        """The keys of our model."""
        heads = self.number("num_attention_heads")
        hidden = self.number("hidden_size")
        tied = self.get("tie_word_embeddings")
        epsilon = self.real("rms_norm_eps", self.get("rms_norm_eps"))
        head_dim = self.get("head_dim")
        if head_dim is None and hidden % heads:
            raise self.wrong("hidden_size", f"it is not a multiple of num_attention_heads {heads}")
        bias = self.family.fixed_bias or (self.family.biased if self.get("attention_bias") else "none")
        std = self.facts.get("initializer_range")
        return {
            "layers": self.number("num_hidden_layers"),
            "hidden": hidden,
            "heads": heads,
            "kv_heads": self.number("num_key_value_heads", heads),
            "head_dim": None if head_dim is None else self.number("head_dim"),
            "ffn": self.number("intermediate_size"),
            "vocabulary": self.number("vocab_size"),
            "tied": bool(tied),
            "norm_epsilon": epsilon,
            "attention_bias": bias,
            "rope_skip_every": self._skips(),
            **({"initial_std": std} if isinstance(std, float) and std > 0 else {}),
            "experts": self._experts(),
            **({"qk_norm": bool(self.facts.get("use_qk_norm"))} if "use_qk_norm" in self.family.keys else {}),
            **self.family.own,
            **self._rope(),
        }

    def _experts(self) -> dict[str, Any] | None:
        """Of a family that has some; without a balance, which the files do not hold."""
        if self.family.experts is None:
            return None
        found: dict[str, Any] = {"active": self.number("num_experts_per_tok"), "balance": "none"}
        if self.family.model_type == "mixtral":
            return {
                **found,
                "count": self.number("num_local_experts"),
                "width": self.number("intermediate_size"),
            }
        if self.family.model_type == "glm4_moe":
            return self._sigmoid_experts()
        dense = self.facts.get("mlp_only_layers") or []
        if dense != list(range(len(dense))):
            raise self.wrong("mlp_only_layers", "megarc's dense layers are the first ones")
        count = "num_experts" if "num_experts" in self.facts else "num_local_experts"
        return {
            **found,
            "count": self.number(count, 128),
            "width": self.number("moe_intermediate_size", 768),
            "normalised": bool(self.facts.get("norm_topk_prob", False)),
            "every": self.number("decoder_sparse_step"),
            "dense_first": len(dense),
        }

    def _sigmoid_experts(self) -> dict[str, Any]:
        """Of GLM 4 and its like: the file holds the bias that balances."""
        for name in ("n_group", "topk_group"):
            if self.facts.get(name, 1) != 1:
                raise self.wrong(name, "megarc chooses among all experts at once: it must be 1")
        scale, dense = (
            self.facts.get("routed_scaling_factor", 1.0),
            self.facts.get("first_k_dense_replace", 1),
        )
        if not isinstance(dense, int) or dense < 0:
            raise self.wrong("first_k_dense_replace", "it must be a whole number of 0 or more")
        return {
            "active": self.number("num_experts_per_tok"),
            "balance": "bias",
            "scores": "sigmoid",
            "count": self.number("n_routed_experts", 128),
            "shared": self.number("n_shared_experts", 1),
            "width": self.number("moe_intermediate_size", 1408),
            "normalised": bool(self.facts.get("norm_topk_prob", True)),
            "scale": self.real("routed_scaling_factor", scale),
            "dense_first": dense,
        }

    def _skips(self) -> int | None:
        """Every how many layers one has no positions, of SmolLM 3's list."""
        if "no_rope_layers" not in self.family.keys:
            return None
        layers = self.number("num_hidden_layers")
        listed = self.facts.get("no_rope_layers")
        if listed is None:
            return self.number("no_rope_layer_interval", 4)
        listed = list(listed)[:layers]
        if all(listed):
            return None
        every = listed.index(0) + 1
        if listed != [int((layer + 1) % every != 0) for layer in range(layers)]:
            raise self.wrong(
                "no_rope_layers", "megarc can skip every k-th layer's positions, no other layers'"
            )
        return every

    def _rope(self) -> dict[str, Any]:
        """Base and scaling, as transformers 5 writes them or as 4 did."""
        new, old = self.facts.get("rope_parameters"), self.facts.get("rope_scaling")
        name = "rope_parameters" if new is not None else "rope_scaling"
        given = dict(new if new is not None else old or {})
        if any(isinstance(value, dict) for value in given.values()):
            raise self.wrong(name, "megarc's layers have one kind of rotary positions")
        base, top = given.pop("rope_theta", None), self.facts.get("rope_theta")
        if base is not None and top not in (None, base):
            raise self.wrong("rope_theta", f"{name} says {base}; keep one of them")
        base = top if base is None else base
        if base is None:
            if self.family.model_type != "llama":
                raise self.wrong("rope_theta", f"neither it nor {name} says the base of rotary positions")
            base = 10000.0  # the first Llama's files do not say it
            self.notes.append("config.json has no rope_theta: taken as 10000, as transformers does")
        base = self.real("rope_theta" if base is top else name, base)
        kind = given.pop("rope_type", given.pop("type", "default"))
        given.pop("type", None)
        if given.pop("partial_rotary_factor", self.get("partial_rotary_factor")) not in (1, None):
            raise self.wrong(name, "megarc rotates whole heads: partial_rotary_factor must be 1")
        if kind == "default":
            return {"rope_base": base}
        return {"rope_base": base, "rope_scaling": self._scaling(name, kind, given)}

    def _scaling(self, name: str, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        names = {
            "linear": {},
            "llama3": {"low_freq_factor": "low_turns", "high_freq_factor": "high_turns"},
            "yarn": {"beta_slow": "low_turns", "beta_fast": "high_turns", "truncate": "whole_numbers"},
        }.get(str(kind))
        if names is None:
            raise self.wrong(name, "megarc has the rope_types default, linear, llama3 and yarn")
        original = given.pop("original_max_position_embeddings", None)
        found = {"kind": kind, "factor": given.pop("factor", None)}
        if kind != "linear":
            found["original_rows"] = original
        if kind == "yarn":
            found["attention_factor"] = self._attention_factor(name, given, found["factor"])
        for theirs, ours in names.items():
            value = given.pop(theirs, None)
            if value is None and kind == "llama3":
                raise self.wrong(name, f"it has no {theirs}")
            if value is not None:
                found[ours] = value if isinstance(value, bool) else self.real(name, value)
        missing = [key for key in ("factor", "original_rows") if key in found and found[key] is None]
        if missing or any(value is not None for value in given.values()):
            what = f"no {missing[0]}" if missing else f"keys that megarc does not know: {', '.join(given)}"
            raise self.wrong(
                name, f"it has {what.replace('original_rows', 'original_max_position_embeddings')}"
            )
        return found

    def _attention_factor(self, name: str, given: dict[str, Any], factor: Any) -> float | None:
        """YaRN's factor of queries and keys: given, or from DeepSeek's two ``mscale``."""
        own, one, other = (given.pop(key, None) for key in ("attention_factor", "mscale", "mscale_all_dim"))
        if own is not None:
            return self.real(name, own)
        if not (one and other) or not isinstance(factor, int | float):
            return None
        scales = [self.real(name, scale) for scale in (one, other)]
        grown = [0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0 for scale in scales]
        return grown[0] / grown[1] if grown[1] else None
