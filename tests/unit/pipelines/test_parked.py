"""Parked commands are found in the log, and settled by commands of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from magnetar.pipelines import CommandParked, lookback
from magnetar.pipelines.parked import ParkedCommand, ParkedCommands
from magnetar.schemas import Command, MessageRefused, OutcomeUnknown, SettingsError, TopicKind, partition_of
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import DROP, CommandCodec
from magnetar.schemas.commit import Commit

from tests.unit.pipelines import counting_rig
from tests.unit.pipelines.counting_rig import Add, Added, Rig, Tally, TooMuch, tallies

HOME = partition_of("a", 2)


class Abandon(Command):
    """Sorted before Add, it makes Add the second of the types."""


WIDER = AggregateSchema("tallies", "Tally", commands=[Abandon, Add], events=[Added], rejections=[TooMuch])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A system whose brain is unlucky at 13, with a worker at work while a test waits for it."""
    rig = Rig(tmp_path / "data")
    yield rig
    rig.close()


@pytest.fixture
def at_work(rig: Rig) -> Iterator[None]:
    """Let the worker decide on a thread from here on."""
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            rig.worker.step(timeout_seconds=0.05)

    thread = Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def commands(rig: Rig) -> ParkedCommands:
    return ParkedCommands(tallies, rig.log, rig.clock)


def open_ones(rig: Rig) -> list[ParkedCommand]:
    return commands(rig).open_ones()


def steps(rig: Rig) -> list[lookback.Step]:
    return list(lookback.steps(tallies, rig.log, "Tally", "a"))


def retry(rig: Rig, parked: ParkedCommand) -> Commit:
    ((settled, commit),) = commands(rig).settle([commands(rig).again(parked)], timeout_seconds=60)
    assert settled == parked
    return commit


def test_what_is_parked_is_listed_and_nothing_else(rig: Rig) -> None:
    rig.send(5, 200, 13, 0)
    rig.publish(HOME, "a", b"junk")
    brain, junk = open_ones(rig)
    assert (brain.parked.reason, brain.position, brain.id) == (
        "brain_raised",
        f"tallies/Tally/{HOME}/3",
        brain.commit.command_id,
    )
    assert commands(rig).command_of(brain)[1] == Add(13)
    assert (junk.parked.reason, junk.position) == ("undecodable", f"tallies/Tally/{HOME}/5")
    assert junk.id != junk.commit.command_id
    assert commands(rig).named(junk.id) == commands(rig).named(junk.position) == junk


def test_a_retry_decides_it_once_the_reason_is_mended(rig: Rig, at_work: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandParked):
        rig.client.ask(Tally, "a", Add(13), actor="ann", metadata={"trace": "x"})
    (parked,) = open_ones(rig)
    monkeypatch.setattr(counting_rig, "UNLUCKY", set())
    commit = retry(rig, parked)
    assert (commit.outcome, commit.events, commit.resolves) == ("accepted", (Added(13),), parked.id)
    assert (commit.actor, commit.at_us, commit.metadata["trace"]) == ("ann", parked.commit.at_us, "x")
    assert (commit.causation_id, commit.correlation_id) == (parked.id, parked.commit.correlation_id)
    assert commit.command_id != parked.id
    assert open_ones(rig) == []
    with pytest.raises(SettingsError, match="is open: it was settled"):
        commands(rig).named(parked.id)


def test_a_retry_that_is_parked_again_stands_in_the_place_of_the_first(rig: Rig, at_work: None) -> None:
    with pytest.raises(CommandParked):
        rig.client.ask(Tally, "a", Add(13))
    (first,) = open_ones(rig)
    commit = retry(rig, first)
    (second,) = open_ones(rig)
    assert (commit.outcome, commit.resolves, second.id) == ("parked", first.id, commit.command_id)


def settle_without_a_worker(rig: Rig) -> None:
    """`magnetar parked retry`, in a terminal of its own, which reads the log anew."""
    again = commands(rig)
    with pytest.raises(OutcomeUnknown, match="no worker has decided it"):
        list(again.settle([again.again(again.named(open_ones(rig)[0].position))], timeout_seconds=0))


def test_a_retry_that_waits_for_a_worker_is_not_sent_again_however_long_it_has_waited(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.send(13)
    settle_without_a_worker(rig)
    ends = rig.log.end(tallies.topic("Tally", TopicKind.COMMANDS), HOME)
    now_ms = rig.clock.now_ms()
    monkeypatch.setattr(rig.clock, "now_ms", lambda: now_ms + 3 * 3_600_000)
    settle_without_a_worker(rig)
    assert rig.log.end(tallies.topic("Tally", TopicKind.COMMANDS), HOME) == ends


def test_retries_and_drops_that_are_sent_at_once_are_decided_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.send(13)
    monkeypatch.setattr(counting_rig, "UNLUCKY", set())
    (parked,) = open_ones(rig)
    terminals = [commands(rig) for _ in range(3)]
    now_ms = rig.clock.now_ms()
    for n, terminal in enumerate(terminals):
        monkeypatch.setattr(terminal, "_undecided", lambda *_: set[str]())  # none of them has seen the others'
        monkeypatch.setattr(rig.clock, "now_ms", lambda n=n: now_ms + n * 60_000)
        settling = terminal.drop(parked, "why", actor=None) if n == 2 else terminal.again(parked)
        with pytest.raises(OutcomeUnknown):
            list(terminal.settle([settling], timeout_seconds=0))
    rig.work()
    assert [step.commit.outcome for step in steps(rig)] == ["parked", "accepted"]
    ((settled, commit),) = terminals[2].settle([terminals[2].drop(parked, "why", actor=None)], timeout_seconds=60)
    assert (settled, commit.outcome, commit.resolves) == (parked, "accepted", parked.id)


def test_a_retry_of_a_version_conflict_expects_no_version(rig: Rig, at_work: None) -> None:
    with pytest.raises(CommandParked):
        rig.client.ask(Tally, "a", Add(5), expected_version=7)
    (parked,) = open_ones(rig)
    assert retry(rig, parked).events == (Added(5),)


def test_a_drop_says_why_and_changes_nothing(rig: Rig, at_work: None) -> None:
    with pytest.raises(CommandParked):
        rig.client.ask(Tally, "a", Add(13))
    rig.client.ask(Tally, "a", Add(5))
    (parked,) = open_ones(rig)
    dropping = commands(rig).drop(parked, "sent by mistake", actor="ann")
    ((_, commit),) = commands(rig).settle([dropping], timeout_seconds=60)
    assert (commit.outcome, commit.metadata[DROP], commit.actor) == ("nothing", "sent by mistake", "ann")
    assert open_ones(rig) == []
    last = steps(rig)[-1]
    assert (last.version, last.state.total, lookback.what_became(last.commit)) == (1, 5, "dropped: sent by mistake")


def test_what_cannot_be_read_can_only_be_dropped(rig: Rig) -> None:
    rig.publish(HOME, "", b"junk")
    rig.publish(1 - HOME, "a", b"junk")
    for parked in open_ones(rig):
        with pytest.raises(MessageRefused, match="cannot be sent again"):
            commands(rig).again(parked)
        with pytest.raises(OutcomeUnknown, match="no worker has decided it"):
            list(commands(rig).settle([commands(rig).drop(parked, "junk", actor=None)], timeout_seconds=0))
    rig.work()
    assert open_ones(rig) == []


def test_a_command_beyond_64_kb_is_read_from_its_topic(rig: Rig) -> None:
    rig.send(13, metadata={"x": "y" * 70_000})
    (parked,) = open_ones(rig)
    assert parked.parked.command is None
    assert commands(rig).command_of(parked)[1] == Add(13)


def test_a_command_whose_topic_is_gone_is_read_from_its_commit(rig: Rig) -> None:
    rig.send(13)
    rig.send(13, metadata={"x": "y" * 70_000})
    short, long = open_ones(rig)
    shutil.rmtree(rig.folder / "log" / "tallies" / "tally-commands")
    again = Rig(rig.folder)
    assert commands(again).command_of(short)[1] == Add(13)
    with pytest.raises(MessageRefused, match="does not stand on its topic any more"):
        commands(again).command_of(long)
    again.close()


def test_a_command_of_an_older_schema_is_sent_again_by_todays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.send(13)
    (parked,) = open_ones(rig)
    monkeypatch.setattr(tallies, "schemas", {"Tally": WIDER})
    rig.log.provision(tallies.topic("Tally", TopicKind.COMMANDS), partitions=2, schema=WIDER.command_json)
    again = commands(rig).again(parked)
    assert CommandCodec(WIDER).decode(again.entry.payload).command == Add(13)
    assert [each["amount"] for each in lookback.commands_of(tallies, rig.log, "Tally", steps(rig)).values()] == [13]


def test_many_are_retried_at_once(rig: Rig, at_work: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        rig.client.send(Tally, f"t{n}", Add(13))
    while len(open_ones(rig)) < 20:
        pass
    monkeypatch.setattr(counting_rig, "UNLUCKY", set())
    settlings = [commands(rig).again(parked) for parked in open_ones(rig)]
    assert {c.outcome for _, c in commands(rig).settle(settlings, timeout_seconds=60)} == {"accepted"}
    assert open_ones(rig) == []
