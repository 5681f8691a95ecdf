"""What holds for every test: where magnetar is imported from, and which tests need a broker."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

STARTING_PROCESSES = {"chaos", "cluster", "docs", "e2e", "kubernetes", "pulsar"}
"""The folders of tests that wait for other processes: on a busy machine one may come too late."""

ASKED_FOR = {"image": "MAGNETAR_TEST_IMAGE", "node": "MAGNETAR_TEST_NODE"}
"""The folders of tests that take minutes, and what asks for them: `make test-image`, `make test-node`."""

# Tests import `examples` and `tests` from the checkout, and magnetar from where it is installed. In front of sys.path
# (where `python -m pytest` puts it) the checkout's `magnetar` folder, which lacks the rooms, would hide the wheel.
sys.path[:] = [*(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT), str(ROOT)]

settings.register_profile("magnetar", deadline=None, print_blob=True)  # a loaded machine is not a failing property
settings.load_profile("magnetar")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test the checkout where the wheel was asked for (MAGNETAR_TEST_INSTALL=wheel)."""
    if os.environ.get("MAGNETAR_TEST_INSTALL") != "wheel":
        return
    for name in ("magnetar", "magnetar.schemas", "magnetar.aggregates", "magnetar.projections", "magnetar.pipelines"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or "site-packages" not in Path(spec.origin).parts:
            raise pytest.UsageError(f"{name} should come from the wheel and comes from {spec and spec.origin}")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a broker, keep it in one process, and leave it out if MAGNETAR_TEST_BROKER=none.

    What is marked `soak` is left out unless MAGNETAR_TEST_SOAK is set, and a folder that has to be asked for likewise.
    So is a module whose NEEDS, what others publish, cannot be had here.
    What starts processes has a second try, and the summary names it.
    """
    for item in items:
        if STARTING_PROCESSES & _folders(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if ROOT / "tests" / "pulsar" in item.path.parents:
            item.add_marker(pytest.mark.broker)
        if item.get_closest_marker("broker"):
            item.add_marker(pytest.mark.xdist_group("broker"))
    left_out = {folder for folder, variable in ASKED_FOR.items() if variable not in os.environ}
    if os.environ.get("MAGNETAR_TEST_BROKER") == "none":
        left_out.add("broker")
    if "MAGNETAR_TEST_SOAK" not in os.environ:
        left_out.add("soak")
    without = [
        item
        for item in items
        if left_out & (_folders(item) | {mark.name for mark in item.iter_markers()}) or _lacks_what_it_needs(item)
    ]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def _folders(item: pytest.Item) -> set[str]:
    return set(item.path.relative_to(ROOT).parts)


def _lacks_what_it_needs(item: pytest.Item) -> bool:
    needed = getattr(getattr(item, "module", None), "NEEDS", ())
    return not all(each.is_had() for each in needed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a first try failed: otherwise only that there was a second one is told."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
