"""Rows over several aggregates, and over those of another context: each suite has an engine to itself."""

from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector_group import group_of
from magnetar.pipelines.provisioning import Sign, apply, plan
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.sharing import Sharing

from tests.unit.pipelines.foreign import billing, purses
from tests.unit.pipelines.live import Live
from tests.unit.pipelines.test_embedded import run_pytest


@pytest.mark.parametrize("suite", ["several_suite", "foreign_suite"])
def test_rows_over_several_aggregates(tmp_path: Path, suite: str) -> None:
    assert " passed" in run_pytest(f"tests/unit/pipelines/{suite}.py", tmp_path)


def test_a_plan_makes_nothing_of_another_context_and_says_what_is_waited_for(tmp_path: Path) -> None:
    live = Live(tmp_path)
    steps = plan(billing, live.log, live.settings)
    (awaited,) = [step for step in steps if "purses" in step.subject]
    assert (awaited.sign, awaited.subject) == (Sign.KEEP, "topic purses/purse-events")
    assert awaited.detail == "not there yet; purses makes it, and billing waits for it. Plan again then"
    apply(steps)
    assert plan(billing, live.log, live.settings) == [awaited]
    provision(purses, live.log)
    assert plan(billing, live.log, live.settings) == []
    live.log.close()


def test_partitions_of_another_context_are_shared_out_as_soon_as_they_are_there(tmp_path: Path) -> None:
    live, log = Live(tmp_path, billing), SqliteLog(tmp_path, SystemClock())
    one = Sharing(billing, log, "one", group_of(billing))
    live.eventually(lambda: one.mine("Purse") == frozenset(range(3)))
    assert one.mine("purses/Purse") == frozenset()
    provision(purses, live.log)
    own = Sharing(purses, log, "own", group_of(purses))  # it takes nothing away from them
    two = Sharing(billing, log, "two", group_of(billing))
    live.eventually(
        lambda: (
            {one.mine("purses/Purse"), two.mine("purses/Purse")} == {frozenset({0}), frozenset({1})}
            and own.mine("Purse") == frozenset({0, 1})
        )
    )
    for each in (one, two, own):
        each.close()
    log.close()
    live.log.close()
