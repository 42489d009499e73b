"""Numbers of heads that do not fit each other are refused in words."""

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig


def test_more_key_heads_than_heads():
    """A mutant of the fuzzer ended in a division by zero."""
    with pytest.raises(UserError, match=r"heads \(4\) is not a multiple of kv_heads \(1000\)"):
        build(ModelConfig, {"heads": 4, "kv_heads": 1000}, "test")
