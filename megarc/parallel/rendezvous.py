"""The first meeting of all ranks: before any process group, who came, who is missing, who differs.

It runs over torch's TCP store, which rank 0 holds: each rank puts one small
value there, rank 0 alone reads them all, and one verdict is read by everybody.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from os import environ
from typing import Any, NoReturn

import torch.distributed as dist

from megarc.errors import ToldByAnotherRank, UserError
from megarc.parallel.master_address import Address, address_of
from megarc.rank_environment import RankEnvironment

log = logging.getLogger("megarc")

_WAITING = 4096  # connections that have not been taken yet
_PATIENCE = timedelta(minutes=5)
_FAREWELL = timedelta(seconds=5)


class Meeting:
    """The store in which ranks meet. A process alone meets nobody, and everything answers at once.

    Args:
        patience: how long ranks wait for each other.
    """

    def __init__(self, process: RankEnvironment, address: Address | None, patience: timedelta) -> None:
        self.process, self.address, self.patience = process, address, patience
        self.store: dist.Store = dist.HashStore() if address is None else _open(process, address, patience)

    def share(self, make: Callable[[], str]) -> str:
        """What ``make`` gives on rank 0, on every rank; so is a UserError that it raises."""
        if self.process.rank == 0:
            try:
                text = make()
            except UserError as error:
                self._refuse("shared", error)
            self.store.set("shared", "+" + text)
            return text
        return self._read("shared")

    def gather(self, name: str, value: Any, ranks: Sequence[int] | None = None) -> list[Any] | None:
        """Every rank's ``value``, on rank 0; None elsewhere.

        Args:
            ranks: on rank 0, those that call this; None: all.

        Raises:
            UserError: on rank 0, and for all, where ranks do not come in time: it names them.
        """
        self.store.set(f"{name}/{self.process.rank}", json.dumps(value))
        if self.process.rank > 0:
            return None
        keys = [f"{name}/{rank}" for rank in (range(self.process.world) if ranks is None else ranks)]
        try:
            self.store.wait(keys, self.patience)
        except RuntimeError:
            here = {_rank_in(key): self._get(key) for key in keys if self.store.check([key])}
            self._refuse("verdict", UserError(_absence(here, self.process.world, self.patience)), len(here))
        return [json.loads(text) for text in self.store.multi_get(keys)]

    def verdict(self, error: str | None) -> None:
        """Rank 0 says whether all may go on; an ``error`` of its is raised on every rank."""
        if self.process.rank > 0:
            self._read("verdict")
        elif error is not None:
            self._refuse("verdict", UserError(error))
        else:
            self.store.set("verdict", "+")

    # ---- helpers

    def _get(self, key: str) -> Any:
        return json.loads(self.store.get(key))

    def _read(self, key: str) -> str:
        """What rank 0 put under ``key``: ``+`` and a text, or ``-``, where it raised."""
        try:
            # Rank 0 itself may wait for the last rank before it answers.
            self.store.wait([key], 2 * self.patience)
            text = self.store.multi_get([key])[0].decode()  # ``get`` would ask once more whether it is there
        except RuntimeError as error:
            raise UserError(
                f"rank {self.process.rank} met rank 0 at {_shown(self.address)}, then heard nothing for "
                f"{2 * self.patience.total_seconds():.0f} s or lost it ({_first_line(error)})"
            ) from None
        if text.startswith("-"):
            self.store.add("heard", 1)
            raise ToldByAnotherRank(text[1:])
        return text[1:]

    def _refuse(self, key: str, error: UserError, here: int | None = None) -> NoReturn:
        """Tells the ranks that are ``here`` (None: all) why they end; this one, which holds the store, stays."""
        self.store.set(key, f"-{error}")
        end = time.monotonic() + _FAREWELL.total_seconds()
        while self.store.add("heard", 0) < (here or self.process.world) - 1 and time.monotonic() < end:
            time.sleep(0.05)
        raise error


def meet(process: RankEnvironment, patience: timedelta = _PATIENCE) -> Meeting:
    """Meets the other ranks where the launcher says."""
    return Meeting(process, address_of(process), patience)


def _rank_in(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


def _open(process: RankEnvironment, address: Address, patience: timedelta) -> dist.Store:
    # torchrun's agent holds the store already, and tells which attempt this is.
    held = process.launcher == "torchrun" and environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    holder = process.rank == 0 and not held
    try:
        store: dist.Store = dist.TCPStore(
            *address, process.world, holder, patience, wait_for_workers=False,
            master_listen_fd=listening(address) if holder else None,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(_no_store(process, address, error)) from None
    return dist.PrefixStore(f"attempt {environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def listening(address: Address) -> int | None:
    """A socket that listens where the other ranks are told to come, on that interface alone; its descriptor.

    By itself torch listens on every interface of the host, and whoever reaches the port could join in.
    None: the address is another's (a router passes it on), or the name means loopback here alone, and another
    address elsewhere: every interface, then.

    Raises:
        OSError: where the port is in use.
    """
    with suppress(socket.gaierror):
        family, kind, _, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        named = address[0] not in (place[0], "localhost")
        if named and ipaddress.ip_address(place[0]).is_loopback:
            return None
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_WAITING)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                log.warning(
                    f"{address[0]} is not an address of this host: port {address[1]} is open on all its interfaces"
                )
                return None
            raise
        return listener.detach()
    return None


def _no_store(process: RankEnvironment, address: Address, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE or "EADDRINUSE" in str(error):
        return (
            f"port {address[1]} of this host is in use, so ranks cannot meet there; another run may hold it: "
            "choose another with MASTER_PORT (deepspeed: --master_port)"
        )
    if process.rank == 0:
        return f"rank 0 cannot open {_shown(address)}, where ranks meet: {_first_line(error)}"
    return (
        f"rank {process.rank} cannot reach rank 0 at {_shown(address)}: {_first_line(error)}; does rank 0 run, "
        "does its name mean the same address on every host (not 127.0.1.1), is the port open between them?"
    )


def _absence(here: dict[int, Any], world: int, patience: timedelta) -> str:
    missing = [rank for rank in range(world) if rank not in here]
    came = describe_hosts([facts["host"] for facts in here.values() if isinstance(facts, dict)])
    return (
        f"{len(missing)} of {world} ranks did not come within {patience.total_seconds():.0f} s: "
        f"rank {describe_ranks(missing)}; there are {came}"
    )


def describe_hosts(hosts: Sequence[str]) -> str:
    """``a (8 ranks), b (4 ranks)``, in the order of ranks; the middle of a long list left out."""
    counts: dict[str, int] = {}
    for host in hosts:
        counts[host] = counts.get(host, 0) + 1
    named = [f"{host} ({count} rank{'s' if count > 1 else ''})" for host, count in counts.items()]
    return ", ".join(
        named if len(named) <= 16 else [*named[:8], f"... {len(named) - 12} more ...", *named[-4:]]
    )


def describe_ranks(ranks: Sequence[int]) -> str:
    """``0-3, 7``: ascending ``ranks`` in a few words."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _shown(address: Address | None) -> str:
    return "nowhere" if address is None else f"{address[0]}:{address[1]}"


def _first_line(error: Exception) -> str:
    with suppress(IndexError):
        return str(error).splitlines()[0]
    return type(error).__name__
