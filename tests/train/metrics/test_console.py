"""Metrics on the console as a table, and as the very lines of metrics.jsonl."""

from megarc.train.metrics.console_rows import ConsoleRows


def test_rows_stand_below_their_heads(capsys):
    rows = ConsoleRows()
    for step in range(25):
        rows.show({"step": f"{step}/25", "loss": f"{step:.3f}", "predicted": "1.2k tok/s"})
    lines = capsys.readouterr().err.splitlines()
    heads = [number for number, line in enumerate(lines) if "loss" in line]
    assert heads == [0, 21] and len(lines) == 27
    assert len({len(line) for line in lines}) == 1
    assert lines[0].index("loss") + 4 == lines[3].index("2.000") + 5
    rows.show({"step": "1", "skipped": "2"})
    assert "skipped" in capsys.readouterr().err.splitlines()[0]
