"""Settings of all tests."""

from collections import Counter

import pytest
from hypothesis import settings
from support.processes import cpu_seconds

# No test asserts a time, and a busy machine is no failure. The same examples every time, so that CI is repeatable.
settings.register_profile("megarc", deadline=None, derandomize=True)
settings.load_profile("megarc")


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
