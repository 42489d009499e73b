"""Settings of all tests."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from support.processes import cpu_seconds

# Two processes of pytest, each with ranks of its own, share the cores. Threads of torch would wait for one another in
# loops: test_continuations.py took 56 CPU-seconds with them and takes 3 without. Torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Else each process that compiles starts others, which import torch again: 8 of 25 CPU-seconds of a small model.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# No test asserts a time, and a busy machine is no failure. The same examples every time, so that CI is repeatable.
settings.register_profile("megarc", deadline=None, derandomize=True)
settings.load_profile("megarc")


# The costliest files (`--cpu` shows them) come first: one that came last would keep one worker busy and the other idle.
FIRST = (
    "system/test_slurm.py",
    "train/engine/test_parity.py", "train/engine/test_compiled.py", "whole/test_tutorial.py", "docs/test_site.py",
    "attention/test_engines.py", "attention/test_triton_fused.py", "whole/test_launchers.py", "whole/test_faults.py",
    "batchsize/test_branches.py", "train/health/test_damage.py", "train/checkpoint/test_keeping.py",
    "train/checkpoint/test_interrupted.py", "tiers/test_whole.py", "batchsize/test_sweep.py", "whole/test_readme.py",
    "train/health/test_hangs.py", "train/health/test_bad_steps.py", "train/health/test_signals.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


def pytest_make_parametrize_id(val):
    """No bytes in a test's name: compressed ones hold the time, and two workers must collect the same names."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_addoption(parser):
    parser.addoption("--cpu", action="store_true", help="print the CPU-seconds of the costliest files")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    before = cpu_seconds()
    item.user_properties.append(("cpu before", before))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown":
        report.user_properties.append(("cpu", cpu_seconds() - dict(item.user_properties)["cpu before"]))
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--cpu"):
        return
    files, tests = Counter(), Counter()
    for report in [one for kind in terminalreporter.stats.values() for one in kind]:
        if getattr(report, "when", "") == "teardown":
            tests[report.nodeid] = dict(report.user_properties)["cpu"]
            files[report.nodeid.split("::")[0]] += tests[report.nodeid]
    terminalreporter.section("CPU-seconds")
    for name, seconds in [*files.most_common(30), *tests.most_common(20)]:
        terminalreporter.write_line(f"{seconds:8.1f}  {name}")
    terminalreporter.write_line(f"{files.total():8.1f}  in all, with imports of the tests")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """``support.small_run.make_run``'s run folder; beside it lie its text, its corpus and its tasks."""
    from support.small_run import make_run

    return make_run(tmp_path_factory.mktemp("small"))
