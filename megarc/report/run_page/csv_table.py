"""Every line of metrics of every run as one table of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from megarc.report.run_page.history import RunHistory


def csv_table(runs: Sequence[RunHistory]) -> str:
    """A row for each line of metrics: the run's name, FLOPs until then, and every number of the line."""
    columns = list(dict.fromkeys(name for run in runs for line in run.lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", "flops", *columns], lineterminator="\n")
    writer.writeheader()
    for run in runs:
        for line in run.lines:
            writer.writerow({"run": run.name, "flops": run.flops(line["samples"]), **line})
    return text.getvalue()
