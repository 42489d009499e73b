"""A megarc model with its mask, for transformers: AutoModelForCausalLM with trust_remote_code=True.

The window is [R | C]: rows of R all see each other, rows of C see R and C up to themselves. ``token_type_ids`` of 1
mark R, as for transformers' own prefix models: one run from the first token on (padding on the left aside).

- ``model(input_ids, token_type_ids=...)`` applies the mask; without token_type_ids the model is plainly causal.
- ``model.generate(input_ids)``: the prompt is R, its last token begins C. After ``refresh`` new tokens the window
  moves, as in megarc: the oldest tokens leave and R is encoded again.
"""

import inspect

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import create_causal_mask

_CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
_OF_ONE_WINDOW = (
    "streamer",
    "stop_strings",
    "stopping_criteria",
    "assistant_model",
    "return_dict_in_generate",
)


class MegarcConfig(LlamaConfig):
    """Its ``recent``, ``causal`` and ``stride`` are the window that the model was trained with."""


class MegarcForCausalLM(LlamaForCausalLM):
    config_class = MegarcConfig

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        token_type_ids=None,
        **more,
    ):
        """As the base class; ``token_type_ids`` [batch, rows] of 1 mark R."""
        given, cache = input_ids if inputs_embeds is None else inputs_embeds, more.get(_CACHE)
        if token_type_ids is not None:
            recent = token_type_ids[:, -given.shape[1] :] == 1
            if bool(recent.any()):
                attention_mask = self._mask(given, recent, attention_mask, position_ids, cache)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **more,
        )

    def _mask(self, given, recent, attention_mask, position_ids, cache):
        """The mask of [R | C] in the form that the attention implementation takes."""
        if attention_mask is not None and not (torch.is_tensor(attention_mask) and attention_mask.dim() == 2):
            raise ValueError(
                "token_type_ids do not go with a ready mask; give attention_mask [batch, rows] or none"
            )
        if cache is not None and int(cache.get_seq_length()) > 0:
            raise ValueError(
                "token_type_ids mark rows of R behind a filled cache (a prompt encoded in chunks?); rows of R see "
                "each other, so all of R must be encoded at once"
            )
        if "flash" in str(self.config._attn_implementation):
            raise ValueError(
                "flash attention cannot apply the mask of [R | C]; use sdpa, eager or flex_attention"
            )
        real = torch.ones_like(recent) if attention_mask is None else attention_mask.bool()
        recent = recent & real
        later = recent.flip(1).cumsum(1).flip(1) > 0
        if bool((real & ~recent & later).any()):
            raise ValueError("token_type_ids must mark R as one run of 1 from the first token on")
        if position_ids is not None:
            steps, both = position_ids.diff(dim=-1) != 1, real[:, 1:] & real[:, :-1]
            if bool((steps & both).any()):
                raise ValueError(
                    "several documents in a row (position_ids that begin again) do not go with R"
                )
        embeds = given if given.dim() == 3 else self.get_input_embeddings()(given)
        return create_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=real.long(),
            position_ids=None,  # they would only be searched for documents
            or_mask_function=_both_ways(recent),
            **{_CACHE: cache},
        )

    @staticmethod
    def create_masks_for_generate(config, inputs_embeds, attention_mask, *others, **more):
        """With a static cache transformers would make a causal mask here; ``forward`` makes the right one."""
        return attention_mask

    @torch.no_grad()
    def generate(self, inputs=None, generation_config=None, *, refresh=None, recent=None, **more):
        """As transformers', window by window.

        Args:
            refresh: new tokens after which the window moves, at most the stride; None: the stride. 0: the window
                never moves and grows beyond the rows that the model was trained on.
            recent: rows of R at most; None: the window's.
        """
        ids = more.pop("input_ids", None) if inputs is None else inputs
        if ids is None or more.get("inputs_embeds") is not None or ids.shape[1] == 0:
            raise ValueError("generate needs input_ids with at least one token")
        stride, rows = self.config.stride, self.config.recent + self.config.causal
        if refresh is not None and not 0 <= refresh <= stride:
            raise ValueError(f"refresh is {refresh}; it must be from 0 to the stride, {stride}")
        recent = self.config.recent if recent is None else recent
        more.pop("token_type_ids", None)  # the prompt says what is R; tokenizers give zeros
        settings = generation_config or self.generation_config
        if more.get("prefill_chunk_size") or getattr(settings, "prefill_chunk_size", None):
            raise ValueError("prefill_chunk_size cuts R into parts that cannot see each other; leave it out")
        never = self.generation_config.suppress_tokens  # ids without a token, whatever else a caller asks for
        if never:
            left_out = more.pop("suppress_tokens", None) or settings.suppress_tokens or ()
            more["suppress_tokens"] = sorted({*left_out, *never})
        pad = more.pop("pad_token_id", None)
        pad = settings.pad_token_id if pad is None else pad
        ends = more.get("eos_token_id", settings.eos_token_id)
        ends = [] if ends is None else torch.as_tensor(ends).flatten().tolist()
        pad = (ends or [0])[0] if pad is None else pad
        texts = _without_padding(ids, more.pop("attention_mask", None))
        count = _new_tokens(more, settings, ids.shape[1])
        step = count if refresh == 0 else refresh or stride
        if step < count:
            alone = [name for name in _OF_ONE_WINDOW if more.get(name) or getattr(settings, name, None)]
            many = ("num_beams", "num_return_sequences")
            alone += [name for name in many if (more.get(name) or getattr(settings, name, None) or 1) > 1]
            if alone:
                raise ValueError(
                    f"{', '.join(alone)} needs one window: give refresh=0, or at most {step} new tokens"
                )
        begin, made = rows - (refresh or stride) + 1, 0
        news = [[] for _ in texts]
        while made < count:
            going = [number for number, new in enumerate(news) if not new or new[-1] not in ends]
            if not going:
                break
            room = min(step, count - made)
            window = _window([(texts[number] + news[number])[-begin:] for number in going], recent, pad, ids)
            out = super().generate(
                **window, generation_config=generation_config, max_new_tokens=room, pad_token_id=pad, **more
            )
            if step >= count and not torch.is_tensor(out):
                return out
            drawn, width = out[:, window["input_ids"].shape[1] :], len(out) // len(going)
            if step >= count:
                return torch.cat((ids.repeat_interleave(width, 0), drawn), 1)
            for number, row in zip(going, drawn.tolist(), strict=True):
                end = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
                news[number] += row[:end]
            made += room
        longest = max((len(new) for new in news), default=0)
        return torch.cat((ids, ids.new_tensor([new + [pad] * (longest - len(new)) for new in news])), 1)


def _both_ways(recent):
    """Rows of R see R. It runs under vmap: no branch, every index inside."""
    last = recent.shape[1] - 1

    def allow(batch, head, row, key):
        inside = (row <= last) & (key <= last)
        return inside & recent[batch, row.clamp(max=last)] & recent[batch, key.clamp(max=last)]

    return allow


def _without_padding(ids, mask):
    if mask is None:
        return ids.tolist()
    if not bool((mask.diff(dim=1) >= 0).all() & mask[:, -1].all()):
        raise ValueError("prompts of unequal length are padded on the left: tokenizer.padding_side = 'left'")
    return [row[len(row) - int(real) :] for row, real in zip(ids.tolist(), mask.sum(1), strict=True)]


def _new_tokens(more, settings, length):
    new, longest = more.pop("max_new_tokens", None), more.pop("max_length", None)
    if new is None and longest is None:
        new, longest = settings.max_new_tokens, settings.max_length
    if new is None:
        return 20 if longest is None else max(0, longest - length)
    return new


def _window(texts, recent, pad, like):
    """Texts padded on the left, with what is real and what is R: of p tokens the first min(recent, p - 1)."""
    width = max(map(len, texts))
    gaps = [width - len(text) for text in texts]
    kinds = [min(recent, len(text) - 1) for text in texts]
    return {
        "input_ids": like.new_tensor([[pad] * gap + text for gap, text in zip(gaps, texts, strict=True)]),
        "attention_mask": like.new_tensor([[0] * gap + [1] * (width - gap) for gap in gaps]),
        "token_type_ids": like.new_tensor(
            [[0] * gap + [1] * r + [0] * (width - gap - r) for gap, r in zip(gaps, kinds, strict=True)]
        ),
    }
