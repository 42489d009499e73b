"""The report of runs as one HTML page, with every picture inside.

In: run folders. Out: a page that needs no network and no script (`run_page.py`), and a table of all metrics
(`csv_table.py`). `heldout_detail.py` scores a run's checkpoint.
"""

from megarc.report.run_page.csv_table import csv_table
from megarc.report.run_page.heldout_detail import HeldOutDetail, heldout_detail
from megarc.report.run_page.history import RunHistory, read_history, short_names
from megarc.report.run_page.run_page import common_unit, run_page
from megarc.report.run_page.skipped_text import skipped_texts

__all__ = [
    "HeldOutDetail",
    "RunHistory",
    "common_unit",
    "csv_table",
    "heldout_detail",
    "read_history",
    "run_page",
    "short_names",
    "skipped_texts",
]
