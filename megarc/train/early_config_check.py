"""The configuration, read before anything heavy is imported: a key's typo costs no seconds of torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from megarc.errors import UserError, reported_once
from megarc.rank_environment import RankEnvironment, on_one_host
from megarc.train.config import RunConfig


def first_look(
    place: RankEnvironment, read: Callable[[], RunConfig], environment: Mapping[str, str] = os.environ
) -> None:
    """Reads the configuration once, for its mistakes; ``start`` reads and shares it again.

    Where ranks are on several hosts a mistake is left to ``start``: others may not see the file, and would
    wait for a rank that is gone.

    Raises:
        UserError: for a mistake, on every rank of this host alike.
    """
    try:
        with reported_once(place.rank == 0):
            read()
    except UserError:
        if place.world == 1 or on_one_host(place, environment):
            raise
