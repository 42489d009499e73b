"""Which token ends a document: said by the user, by the files beside a tokenizer, by itself, or by its name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from megarc.errors import UserError

BESIDE = ("tokenizer_config.json", "special_tokens_map.json")  # Hugging Face's; the first that tells counts
_NAMES = (
    *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<EOS>"),
    # DeepSeek's has full-width bars
    *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<|end\u2581of\u2581sentence|>"),
    *("<eod>", "<EOD>", "<|eod|>", "[EOD]", "[EOS]", "[SEP]"),
)


@dataclass(frozen=True, slots=True)
class EndOfDocument:
    """The token, its id, and what chose it."""

    id: int
    token: str
    why: str

    def __str__(self) -> str:
        return f"{self.token!r} ({self.id}), {self.why}"


def named_beside(tokenizer: Path) -> tuple[str, str] | None:
    """The end token that a file beside the tokenizer names, and that file: what Hugging Face and Megatron take.

    Raises:
        UserError: where such a file is not JSON.
    """
    for name in BESIDE:
        path = tokenizer.parent / name
        try:
            tree = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, orjson.JSONDecodeError) as error:
            raise UserError(
                f"{path}, beside the tokenizer, cannot be read: {error}; repair or remove it"
            ) from None
        found = tree.get("eos_token") if isinstance(tree, dict) else None
        token = found.get("content") if isinstance(found, dict) else found
        if isinstance(token, str) and token:
            return token, name
    return None


def chosen(
    wanted: str | None,
    beside: tuple[str, str] | None,
    own: int | None,
    ids: Mapping[str, int],
    special: Mapping[str, int],
) -> EndOfDocument | None:
    """The token that ends a document; None where there is none.

    Args:
        wanted: by the user: a token, or its id.
        beside: ``named_beside``.
        own: the id that the tokenizer's file itself names.
        ids: all tokens.
        special: those that text never turns into, or only where it spells them out.

    Raises:
        UserError: where ``wanted`` is no token.
    """
    if wanted is not None:
        return _wanted(wanted, ids)
    if beside is not None and beside[0] in ids:
        return EndOfDocument(ids[beside[0]], beside[0], f"the eos_token of {beside[1]}")
    unknown = f"; {beside[1]} names {beside[0]!r}, which it does not have" if beside else ""
    if own is not None:
        token = next((token for token, number in ids.items() if number == own), "?")
        return EndOfDocument(own, token, f"as the tokenizer's file says{unknown}")
    found = [name for name in _NAMES if name in special]
    if not found:
        return None
    others = f"; there are {', '.join(found[1:])} too" if found[1:] else ""
    why = f"guessed by its name{others}{unknown}: --eod-token says another"
    return EndOfDocument(special[found[0]], found[0], why)


def _wanted(wanted: str, ids: Mapping[str, int]) -> EndOfDocument:
    why = "as asked for"
    if wanted in ids:
        return EndOfDocument(ids[wanted], wanted, why)
    by_number = {number: token for token, number in ids.items()}
    if wanted.isdecimal() and int(wanted) in by_number:
        return EndOfDocument(int(wanted), by_number[int(wanted)], why)
    near = difflib.get_close_matches(wanted, list(ids), n=3)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise UserError(
        f"--eod-token {wanted}: the tokenizer has no such token{hint}; give one of its tokens, or an id"
    )


def special_tokens(tree: Any, ids: Mapping[str, int]) -> dict[str, int]:
    """The special tokens of a ``tokenizer.json``."""
    added = tree.get("added_tokens") or []
    return {token["content"]: ids[token["content"]] for token in added if token.get("special")}
