"""The history of one aggregate, from the log."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from magnetar.pipelines import lookback
from magnetar.schemas import SettingsError, partition_of

from tests.unit.pipelines.counting_rig import Added, Rig, Tally, TooMuch, tallies


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    yield rig
    rig.close()


def steps(rig: Rig, id: str = "a") -> list[lookback.Step]:
    return list(lookback.steps(tallies, rig.log, "Tally", id))


def test_every_commit_of_the_aggregate_is_there_with_the_state_after_it(rig: Rig) -> None:
    rig.send(5, 0, 200, 13, 6)
    found = steps(rig)
    assert [step.commit.outcome for step in found] == ["accepted", "nothing", "rejected", "parked", "accepted"]
    assert [step.version for step in found] == [1, 1, 1, 1, 2]
    assert [step.state for step in found] == [Tally(5), Tally(5), Tally(5), Tally(5), Tally(11)]
    assert found[4].position == f"tallies/Tally/{partition_of('a', 2)}/5"
    assert [re.sub(r"counting_rig.py:\d+", "…", lookback.what_became(step.commit)) for step in found] == [
        repr(Added(5)),
        "",
        repr(TooMuch(5)),
        "brain_raised: RuntimeError: unlucky at tests/unit/pipelines/…",
        repr(Added(11)),
    ]


def test_other_aggregates_of_the_partition_are_passed_over(rig: Rig) -> None:
    neighbour = next(id for id in "bcdefgh" if partition_of(id, 2) == partition_of("a", 2))
    rig.send(5)
    rig.send(7, id=neighbour)
    rig.send(6)
    assert [step.state for step in steps(rig)] == [Tally(5), Tally(11)]
    assert [step.state for step in steps(rig, neighbour)] == [Tally(7)]
    assert steps(rig, "nobody") == []


def test_it_goes_over_takeovers_of_the_partition(rig: Rig) -> None:
    rig.send(5)
    rig.worker.close()
    second = Rig(rig.folder)
    second.send(6)
    assert [step.state for step in steps(rig)] == [Tally(5), Tally(11)]
    second.close()


def test_it_is_shown_up_to_a_version(rig: Rig) -> None:
    rig.send(5, 200, 6, 7)
    assert [step.version for step in lookback.up_to(steps(rig), version=1)] == [1, 1]
    assert lookback.up_to(steps(rig), version=0) == []
    with pytest.raises(SettingsError, match="no version 4: the newest is 3"):
        lookback.up_to(steps(rig), version=4)


def test_it_is_shown_up_to_the_last_command_of_a_time(rig: Rig) -> None:
    rig.send(5, 6, 7)
    times = [lookback.at_of(step.commit) for step in steps(rig)]
    assert [step.version for step in lookback.up_to(steps(rig), at=times[1])][-1] >= 2
    assert lookback.up_to(steps(rig), at=times[0] - timedelta(microseconds=1)) == []
    assert len(lookback.up_to(steps(rig), at=datetime.now(UTC))) == 3


def test_the_commands_are_read_from_their_topic(rig: Rig) -> None:
    rig.send(5, 13)
    rig.publish(partition_of("a", 2), "a", b"junk")
    found = lookback.commands_of(tallies, rig.log, "Tally", steps(rig))
    assert found == {1: {"type": "Add", "amount": 5}, 2: {"type": "Add", "amount": 13}}


def test_an_id_that_cannot_be_one_and_an_aggregate_that_is_not_there_are_named(rig: Rig) -> None:
    with pytest.raises(SettingsError, match="cannot be printed"):
        steps(rig, "a\n")
    with pytest.raises(SettingsError, match="has no aggregate 'Nobody'"):
        list(lookback.steps(tallies, rig.log, "Nobody", "a"))
