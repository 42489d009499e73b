"""From a process that a launcher started to a configuration and groups, checked among all ranks."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from megarc.config import build, to_dict
from megarc.errors import reported_once
from megarc.parallel import Groups, Link, Present, check_links, connect, describe_hosts, meet, roll_call
from megarc.rank_environment import RankEnvironment
from megarc.train.config import RunConfig

log = logging.getLogger("megarc")


@dataclass(frozen=True, slots=True)
class Start:
    """What all ranks begin with; ``present`` and ``links`` are known to rank 0 alone."""

    config: RunConfig
    groups: Groups
    present: list[Present]
    links: list[Link]


def start(process: RankEnvironment, read: Callable[[], RunConfig], patience: timedelta) -> Start:
    """Meets the other ranks, shares the configuration that rank 0 reads, compares and connects all.

    Args:
        patience: how long ranks wait for each other.

    Raises:
        UserError: on every rank alike.
    """
    speak(process)
    meeting = meet(process, patience)
    tree = json.loads(meeting.share(lambda: json.dumps(to_dict(read()))))
    config = build(RunConfig, tree, "the configuration that rank 0 read")
    layout = config.parallel
    present = roll_call(meeting, config.device, layout.expected)
    with reported_once(process.rank == 0):
        groups = connect(
            meeting,
            config.device,
            tensor=layout.tensor,
            pipeline=layout.pipeline,
            sequence=layout.sequence,
            context=layout.context,
            expert=layout.expert,
            # The watchdog comes first: it can say who is to blame.
            timeout=timedelta(seconds=2 * config.health.patience + 900),
        )
    hosts = [one.host for one in present]
    if process.world > 1 and groups.first:
        log.info(f"{process.world} ranks by {process.launcher}: {describe_hosts(hosts)}")
    links = check_links(groups, hosts)
    for link in links:
        if link.slow:
            log.warning(f"slow link: {link.describe()}")
    return Start(config, groups, present, links)


def speak(process: RankEnvironment) -> None:
    """Rank 0 speaks; others only warn. Each rank's log file has all it says."""
    console = Console(logging.INFO if process.rank == 0 else logging.WARNING)
    console.setFormatter(
        logging.Formatter("%(message)s" if process.rank == 0 else f"rank {process.rank}: %(message)s")
    )
    root = logging.getLogger()
    for earlier in [handler for handler in root.handlers if isinstance(handler, Console)]:
        root.removeHandler(earlier)  # of an earlier run in this process: each line is said once
    root.addHandler(console)
    logging.getLogger("megarc").setLevel(logging.INFO)


class Console(logging.Handler):
    """Standard error as it is when a line is said: a progress bar puts itself before it, and lines stand above."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)
