"""Every tracker has every line: also after a kill, a resume, and beside one that fails. With the real packages."""

import csv
import logging
import os
import signal
import struct
import sys

import orjson
import pytest
from support.processes import run as run_process

from megarc.train.loop import Ending, Moment
from megarc.train.metrics.trackers import Tracked, Trackers, flat
from megarc.train.metrics.trackers.shipper import KINDS


def line(step, **more):
    values = {"train/nats_per_token": 1 / step, "held-out/a@b é": None if step % 2 else 0.5, **more}
    return {"step": step, "samples": 8 * step, "time": 1e9 + step, **values}


def write(folder, steps, **more):
    with (folder / "metrics.jsonl").open("ab") as file:
        file.writelines(orjson.dumps(line(step, **more)) + b"\n" for step in steps)


def tracked(folder):
    config = flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "seed": 1, "empty": {}})
    return Tracked("tests", "run", folder.name, config, folder / "trackers")


def opened(folder, *names, step=0, first=True):
    trackers = Trackers(names, lambda: tracked(folder), folder / "metrics.jsonl", first=first)
    trackers.start(None, Moment(step, 100, 8 * step))
    return trackers


def tell(trackers):
    trackers.settled(None, Moment(1, 100, 8), [])


def close(trackers):
    trackers.stop(None, Moment(1, 100, 8), Ending.FINISHED)
    assert not any(ship.is_alive() for ship in trackers._threads)


def in_csv(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [(int(row["step"]), float(row["train/nats_per_token"])) for row in csv.DictReader(file)]


def records_of(data):
    """The records of a .wandb file: LevelDB's log format behind a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def in_wandb(folder):
    from wandb.proto import wandb_internal_pb2 as messages

    found = []
    for path in sorted((folder / "trackers" / "wandb").glob("offline-run-*/*.wandb"), key=os.path.getmtime):
        for data in records_of(path.read_bytes()):
            record = messages.Record()
            record.ParseFromString(data)
            values = {
                item.key or "/".join(item.nested_key): orjson.loads(item.value_json)
                for item in record.history.item
            }
            if "train/nats_per_token" in values:
                found.append((values["step"], values["train/nats_per_token"]))
    return found


def in_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/trackers/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.data.params["optimizer.lr"] == "0.1"
    history = client.get_metric_history(run.info.run_id, "train/nats_per_token")
    return [(metric.step, metric.value) for metric in history]


def in_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("tests", f"run-{folder.name}")
    return [(entry["step"], entry["train/nats_per_token"]) for entry in logs]


READ = {"csv": in_csv, "wandb": in_wandb, "mlflow": in_mlflow, "trackio": in_trackio}


@pytest.fixture(scope="module", autouse=True)
def trackio_folder(tmp_path_factory):
    """trackio reads its variable once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    package = request.param
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'megarc[{package}]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return request.param


def test_a_resumed_run_continues_its_curve(kind, tmp_path):
    """Steps 1 to 6, a checkpoint at 4, steps 5 to 9: every step is there, with its value."""
    trackers = opened(tmp_path, kind)
    write(tmp_path, range(1, 4))
    tell(trackers)
    write(tmp_path, range(4, 7), late=3)
    close(trackers)
    kept = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:4]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(kept))  # as the start of a resumed run cuts it
    trackers = opened(tmp_path, kind, step=4)
    write(tmp_path, range(5, 10))
    tell(trackers)
    close(trackers)
    found = READ[kind](tmp_path)
    assert dict(found) == pytest.approx({step: 1 / step for step in range(1, 10)})
    if kind == "csv":
        assert [step for step, _ in found] == list(range(1, 10))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from train.metrics.trackers.test_trackers import opened, tell, write
folder = Path({folder!r})
trackers = opened(folder, {kind!r})
write(folder, range(1, 31))
tell(trackers)
ship = trackers._threads[0]
while ship._offset == 0:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["csv", "trackio"], indirect=True)
def test_what_a_kill_lost_is_sent_at_the_next_start(kind, tmp_path):
    tests = str(__file__).split("/train/metrics")[0]
    code = KILLED.format(tests=tests, folder=str(tmp_path), kind=kind)
    script = tmp_path / "killed.py"
    script.write_text(code)
    ended = run_process([sys.executable, str(script)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    trackers = opened(tmp_path, kind, step=30)
    close(trackers)
    assert {step for step, _ in READ[kind](tmp_path)} == set(range(1, 31))


def test_a_tracker_that_fails_stops_neither_the_run_nor_the_others(tmp_path, monkeypatch, caplog):
    class Broken:
        def open(self, run):
            return -1

        def log(self, lines):
            sys.exit(3)

    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("megarc.train.metrics.trackers.shipper.KINDS", {**KINDS, "wandb": Broken})
    with caplog.at_level(logging.WARNING):
        trackers = opened(tmp_path, "wandb", "mlflow", "csv")
        write(tmp_path, range(1, 4))
        for _ in range(3):
            tell(trackers)
        close(trackers)
    assert [step for step, _ in in_csv(tmp_path)] == [1, 2, 3]
    assert "wandb failed (SystemExit: 3); the run goes on without it" in caplog.text
    assert "mlflow is not installed: pip install 'megarc[mlflow]'; the run goes on" in caplog.text


def test_a_package_that_is_there_and_cannot_be_imported_is_not_called_missing(tmp_path, monkeypatch, caplog):
    (tmp_path / "wandb.py").write_text("import a_part_of_wandb_that_is_not_there")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING):
        close(opened(tmp_path, "wandb"))
    assert "wandb cannot be imported (No module named 'a_part_of_wandb_that_is_not_there')" in caplog.text


def test_ranks_other_than_the_first_open_nothing(tmp_path):
    trackers = opened(tmp_path, "csv", first=False)
    write(tmp_path, [1])
    close(trackers)
    assert not (tmp_path / "metrics.csv").exists()


def test_csv_has_a_column_for_each_name_from_its_first_line_on(tmp_path):
    trackers = opened(tmp_path, "csv")
    write(tmp_path, [1, 2])
    write(tmp_path, [3], late=7.5)
    close(trackers)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(encoding="utf-8", newline="")))
    assert [row["late"] for row in rows] == ["", "", "7.5"] and rows[0]["held-out/a@b é"] == ""
