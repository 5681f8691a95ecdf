"""A recorded log under other code: what would be decided differently, and what does not fold any more."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.cli import diffing
from magnetar.pipelines.parked import ParkedCommands
from magnetar.pipelines.replaying import Replayed, replay
from magnetar.schemas import Event, OutcomeUnknown, partition_of

from tests.unit.pipelines.counting_rig import UNLUCKY, Add, Added, Rig, TooMuch, tallies


class Strict(Aggregate, wire_name="Tally"):
    """Takes less."""

    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        if command.amount > 10:
            return TooMuch(self.total)
        return Added(self.total + command.amount) if command.amount else None

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


class Doubling(Aggregate, wire_name="Tally"):
    """Says another total."""

    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        if command.amount > 100:
            return TooMuch(self.total)
        return Added(self.total + 2 * command.amount) if command.amount else None

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


class Choosy(Aggregate, wire_name="Tally"):
    """Cannot fold all of it."""

    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        return TooMuch(self.total) if command.amount > 100 else Added(self.total + command.amount)

    def apply(self, event: Added) -> Self:
        if event.total > 6:
            raise ValueError("too many")
        return self.replace(total=event.total)


class Ending(Aggregate, wire_name="Tally"):
    """Ends early."""

    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        return TooMuch(self.total) if command.amount > 100 else Added(self.total + command.amount)

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)

    def is_ended(self) -> bool:
        return self.total >= 5


DICE = count()


class Dicing(Aggregate, wire_name="Tally"):
    """Decides otherwise each time."""

    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        return Added(1_000 + next(DICE))

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


class Other(Event):
    text: str


class Forgetful(Aggregate, wire_name="Tally"):
    """Has no word for what was recorded."""

    total: int = 0

    def execute(self, command: Add) -> Other | TooMuch | None:
        return Other("")

    def apply(self, event: Other) -> Self:
        return self


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    yield rig
    rig.close()


def replayed(rig: Rig, aggregate: Any, **options: Any) -> Replayed:
    return replay(Pipeline("tallies", aggregates=[aggregate], partitions=2), rig.log, "Tally", **options)


def counts(found: Replayed) -> dict[tuple[str, str], int]:
    return {(each.recorded, each.now): each.commands for each in found.otherwise}


def test_the_same_code_decides_the_same(rig: Rig) -> None:
    rig.send(5, 0, 200, 13, 6)
    rig.send(7, id="b")
    found = replay(tallies, rig.log, "Tally")
    assert found.is_same
    assert (found.commits, found.asked, found.not_asked) == (6, 6, {})


def test_commands_are_counted_by_what_they_came_to_and_would_come_to(rig: Rig) -> None:
    rig.send(5, 20, 0, 200, 30)
    found = replayed(rig, Strict)
    assert counts(found) == {("Added", "rejected: TooMuch"): 2}
    example = found.otherwise[0].examples[0]
    assert (example.aggregate_id, example.version, example.command) == ("a", 1, repr(Add(20)))
    assert (example.recorded, example.now) == (repr(Added(25)), repr(TooMuch(5)))
    assert example.position == f"tallies/Tally/{partition_of('a', 2)}/2"


def test_a_decision_is_made_on_the_recorded_events_before_it(rig: Rig) -> None:
    rig.send(5, 1)
    found = replayed(rig, Doubling)
    assert counts(found) == {("Added", "Added"): 2}
    assert [each.now for each in found.otherwise[0].examples] == [repr(Added(10)), repr(Added(7))]


def test_what_was_parked_by_an_error_is_decided_by_code_that_has_none(rig: Rig) -> None:
    rig.send(13)
    UNLUCKY.clear()
    try:
        found = replay(tallies, rig.log, "Tally")
    finally:
        UNLUCKY.add(13)
    assert counts(found) == {("parked: brain_raised", "Added"): 1}
    assert "unlucky" in found.otherwise[0].examples[0].recorded


def test_what_was_parked_and_settled_later_is_no_difference(rig: Rig) -> None:
    rig.send(13)
    parked = ParkedCommands(tallies, rig.log, rig.clock)
    UNLUCKY.clear()
    try:
        settling = parked.again(parked.open_ones()[0])
        with pytest.raises(OutcomeUnknown):
            list(parked.settle([settling], timeout_seconds=0))
        rig.work()
        assert replay(tallies, rig.log, "Tally").is_same
    finally:
        UNLUCKY.add(13)


def test_code_that_raises_would_park(rig: Rig) -> None:
    UNLUCKY.clear()
    try:
        rig.send(13)
    finally:
        UNLUCKY.add(13)
    found = replay(tallies, rig.log, "Tally")
    assert counts(found) == {("Added", "parked: brain_raised"): 1}
    assert re.search(r"RuntimeError: unlucky at .*counting_rig.py:\d+", found.otherwise[0].examples[0].now)


def test_an_aggregate_that_ends_earlier_takes_no_more_commands(rig: Rig) -> None:
    rig.send(5, 6)
    assert counts(replayed(rig, Ending)) == {("Added", "parked: ended"): 1}


def test_an_event_that_does_not_fold_is_named_with_its_line_and_what_is_behind_it_is_not_asked(rig: Rig) -> None:
    rig.send(5, 6, 7)
    rig.send(1, id="b")
    found = replayed(rig, Choosy)
    (broken,) = found.not_folding
    assert (broken.event, broken.aggregates) == ("Added", 1)
    assert re.fullmatch(r"ValueError: too many at tests/unit/pipelines/test_replaying.py:\d+", broken.error)
    assert broken.examples[0].aggregate_id == "a"
    assert found.not_asked == {"behind an event that does not fold": 1}
    assert counts(found) == {("Added", "parked: brain_raised"): 1}


def test_an_event_that_the_code_lacks_is_named(rig: Rig) -> None:
    rig.send(5, 6)
    (broken,) = replayed(rig, Forgetful).not_folding
    assert "Added" in broken.error
    assert broken.aggregates == 1


def test_a_sample_takes_the_first_commits_of_as_few_partitions_as_have_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnetar.pipelines.sampling.PARTITION_COMMITS_MIN", 2)
    neighbour = next(id for id in "bcdefgh" if partition_of(id, 2) != partition_of("a", 2))
    rig.send(5, 20, 30)
    rig.send(20, 30, id=neighbour)
    assert [replayed(rig, Strict, sample=wanted).commits for wanted in (1, 2, 3, 4, 5, 6)] == [1, 2, 3, 4, 5, 5]
    assert counts(replayed(rig, Strict, sample=4)) == {("Added", "rejected: TooMuch"): 3}


def test_so_many_examples_are_kept_and_all_are_counted(rig: Rig) -> None:
    rig.send(*[20] * 5)
    found = replayed(rig, Strict, examples=2)
    assert found.otherwise[0].commands == 5
    assert len(found.otherwise[0].examples) == 2


def test_commands_that_are_not_on_their_topic_any_more_are_counted(rig: Rig) -> None:
    rig.send(5, 20, 6)
    (file,) = rig.folder.rglob(f"tally-commands/{partition_of('a', 2)}.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM messages WHERE offset = (SELECT min(offset) FROM messages)")
        connection.commit()
    found = replayed(rig, Strict)
    assert found.not_asked == {"the command is not on its topic any more": 1}
    assert counts(found) == {("Added", "rejected: TooMuch"): 1}


def test_commands_that_come_to_another_thing_each_time_are_counted(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.send(5, 6)
    assert replayed(rig, Dicing).unsteady == 2
    assert replayed(rig, Ending).unsteady == 0
    diffing._say_aggregate(replayed(rig, Dicing))
    assert "Tally is not deterministic: asked twice, 2 commands came to another thing" in capsys.readouterr().out
