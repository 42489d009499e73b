"""A rank of test_meeting.py: python meeting_worker.py JOB, a JSON object."""

import json
import sys
from datetime import timedelta

import torch

from megarc.errors import UserError, run_script
from megarc.parallel import check_links, connect, disconnect, meet, rank_check, roll_call, together
from megarc.rank_environment import read_rank_environment


def main():
    torch.set_num_threads(1)
    job = json.loads(sys.argv[1])
    place = read_rank_environment()
    if job.get("other") == place.rank:
        rank_check.code_digest = lambda: "changed"
    meeting = meet(place, timedelta(seconds=job["patience"]))

    def make():
        if job.get("mistake") == place.rank:
            raise UserError("a mistake in the file")
        return "of rank 0"

    print("shared:", meeting.share(make))
    present = roll_call(meeting, "cpu", job.get("expected"))
    print("present:", *(one.host for one in present))
    groups = connect(meeting, "cpu")

    def action():
        if job.get("mistake_later") == place.rank:
            raise UserError("only here")

    try:
        together(action, groups.world)
        for link in check_links(groups, [one.host for one in present]):
            print("link", link.describe())
    finally:
        disconnect()


run_script(main)
