"""The worker on the embedded log: from a command to its reply, over restarts, and what it refuses."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import CommandParked, Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import FAILPOINTS, Worker
from magnetar.schemas import (
    Command,
    Event,
    LogUnavailable,
    MessageRefused,
    OutcomeUnknown,
    PartitionRefused,
    ReadRule,
    TopicKind,
    Verdict,
    partition_of,
    uuid7,
)
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import NO_SOURCE, CommitCodec, read_head, write_source


class Add(Command):
    amount: int


class Added(Event):
    total: int


class Forgotten(Event):
    pass


class Tally(Aggregate):
    total: int = 0

    def execute(self, command: Add) -> Added | None:
        if command.amount == 13:
            raise RuntimeError("unlucky")
        return Added(self.total + command.amount) if command.amount else None

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


tallies = Pipeline("tallies", aggregates=[Tally], partitions=2)
SCHEMA = tallies.schemas["Tally"]
EVENTS, COMMANDS = tallies.topic("Tally", TopicKind.EVENTS), tallies.topic("Tally", TopicKind.COMMANDS)


class Crash(BaseException):
    """The process is gone."""


class System:
    """A log in a folder, workers on it that come and go, and a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = SqliteLog(folder, SystemClock())
        provision(tallies, self.log)
        self.client = SyncClient(tallies, settings=Settings(data=folder))
        self.names = iter(range(1000))

    def worker(self, failpoint: Callable[[str], None] | None = None) -> Worker:
        return Worker(
            self.log,
            Tally,
            SCHEMA,
            partitions=2,
            name=f"w{next(self.names)}",
            clock=SystemClock(),
            random=random.SystemRandom(),
            failpoint=failpoint,
        )

    def drain(self, worker: Worker) -> None:
        while worker.step(timeout_seconds=0.3):
            pass

    def commits(self, partition: int) -> list[int]:
        """The numbers of the commits that count."""
        rule, reader = ReadRule(), self.log.reader(EVENTS, partition, after=None)
        messages = reader.read(messages_max=1000, timeout_seconds=0)
        heads = [read_head(message.payload) for message in messages]
        return [number for number, owner, _ in heads if rule.judge(number, owner) is Verdict.COUNTS]

    def close(self) -> None:
        self.client.close()
        self.log.close()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "data")
    yield system
    system.close()


HOME = partition_of("a", 2)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_worker_killed_at_any_point_leaves_one_commit_for_each_command(system: System, failpoint: str) -> None:
    for n in range(10):
        system.client.send(Tally, "a", Add(n), command_id=uuid7(SystemClock().now_ms(), n))

    def crash(at: str) -> None:
        if at == failpoint:
            raise Crash

    dying = system.worker(crash)
    with pytest.raises(Crash):
        system.drain(dying)
    dying.close()
    survivor = system.worker()
    system.drain(survivor)
    assert system.commits(HOME) == list(range(1, 11))


def test_what_a_worker_knows_survives_it(system: System) -> None:
    first, second = system.worker(), None
    for n in (1, 2):
        system.client.send(Tally, "a", Add(n))
    system.drain(first)
    first.close()
    second = system.worker()
    system.client.send(Tally, "a", Add(4))
    system.drain(second)
    assert second._owned[HOME].processor.state_of("a") == (3, Tally(7))


def test_an_ask_that_nobody_answers_says_that_repeating_is_safe(system: System) -> None:
    id = uuid7(SystemClock().now_ms(), 1)
    with pytest.raises(OutcomeUnknown, match="same command id is safe"):
        system.client.ask(Tally, "a", Add(1), command_id=id, timeout_seconds=0.1)
    system.drain(system.worker())
    system.client.send(Tally, "a", Add(1), command_id=id)
    assert system.commits(HOME) == [1]


def test_a_commit_with_an_event_that_this_code_lacks_refuses_the_partition(system: System) -> None:
    newer = AggregateSchema("tallies", "Tally", commands=[Add], events=[Added, Forgotten], rejections=[])
    system.log.provision(EVENTS, partitions=2, schema=newer.commit_json)
    appender = system.log.fence(EVENTS, HOME, schema=newer.commit_json, name="newer")
    codec, envelope = CommitCodec(newer), CommandEnvelope("a", uuid7(1, 1), 0)
    tail, ids = codec.accepted([Forgotten()]), encode_ids_to_time(envelope)
    commit = codec.encode(1, b"n" * 16, envelope, 0, ids, write_source(NO_SOURCE), tail)
    entries = [Entry("", codec.claim(b"n" * 16, 0, "newer")), Entry("a", commit)]
    appender.append(entries, timeout_seconds=5)
    worker = system.worker()
    system.client.send(Tally, "a", Add(1))
    system.drain(worker)
    assert isinstance(worker.refused[HOME], PartitionRefused)
    assert "Forgotten" in worker.refused[HOME].what
    assert system.commits(HOME) == [1]
    other = next(id for id in "bcdefgh" if partition_of(id, 2) != HOME)
    system.client.send(Tally, other, Add(1))
    system.drain(worker)
    assert system.commits(1 - HOME) == [1]


def test_poison_is_parked_and_the_rest_goes_on(system: System) -> None:
    publisher = system.log.publisher(COMMANDS, schema=SCHEMA.command_json)
    publisher.publish(HOME, [Entry("a", b"junk"), Entry("", b""), Entry("a\n", b"x" * 70_000)], timeout_seconds=5)
    system.client.send(Tally, "a", Add(13))
    system.client.send(Tally, "a", Add(1))
    worker = system.worker()
    system.drain(worker)
    assert system.commits(HOME) == [1, 2, 3, 4, 5]
    assert worker._owned[HOME].processor.state_of("a") == (1, Tally(1))


@pytest.mark.parametrize("id", ["", "x" * 10_000, "a\nb"])
def test_the_client_does_not_send_to_an_id_that_cannot_be_one(system: System, id: str) -> None:
    with pytest.raises(MessageRefused):
        system.client.send(Tally, id, Add(1))


def test_the_client_does_not_send_what_does_not_fit(system: System) -> None:
    wrong: int = "five"  # type: ignore[assignment]
    with pytest.raises(MessageRefused, match=r"Add\b.*int"):
        system.client.send(Tally, "a", Add(wrong))
    with pytest.raises(MessageRefused, match="not a UUID version 7"):
        system.client.send(Tally, "a", Add(1), command_id="x")


@pytest.fixture
def running(system: System) -> Iterator[System]:
    """A system with a worker at work on a thread."""
    worker, stop = system.worker(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            worker.step(timeout_seconds=0.05)

    thread = threading.Thread(target=work)
    thread.start()
    yield system
    stop.set()
    thread.join()
    worker.close()


def test_asks_are_answered_by_a_running_worker(running: System) -> None:
    id = uuid7(SystemClock().now_ms(), 1)
    receipt = running.client.ask(Tally, "a", Add(5), command_id=id)
    assert (receipt.outcome, receipt.version, receipt.position) == (Added(5), 1, f"tallies/Tally/{HOME}/1")
    assert running.client.ask(Tally, "a", Add(0)).outcome is None
    with pytest.raises(CommandParked, match="unlucky"):
        running.client.ask(Tally, "a", Add(13))
    again = running.client.ask(Tally, "a", Add(5), command_id=id)
    assert (again.outcome, again.position) == (Added(5), receipt.position)


# --- partitions that go -----------------------------------------------------------------------------------------------

DEADLINE_SECONDS = 120.0
OTHER = next(id for id in "bcdefgh" if partition_of(id, 2) != HOME)


def until(holds: Callable[[], object], *workers: Worker) -> None:
    """Let the workers work until something holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        for worker in workers:
            worker.step(timeout_seconds=0.02)


def owner_of_both(system: System) -> Worker:
    worker = system.worker()
    for id in ("a", OTHER):
        system.client.send(Tally, id, Add(1))
    until(lambda: worker.owned == (0, 1), worker)
    return worker


def test_what_has_gone_to_another_worker_is_forgotten_though_no_command_comes(system: System) -> None:
    first = owner_of_both(system)
    until(lambda: len(first.owned) == 1, first, system.worker())
    assert first.keeps_off is False


def test_a_worker_that_cannot_rejoin_goes_on_with_the_rest_and_tries_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, refusals = owner_of_both(system), iter([LogUnavailable("gone")] * 2)
    release = worker._consumer.release

    def refuse_twice(partition: int) -> None:
        for refusal in refusals:
            raise refusal
        release(partition)

    monkeypatch.setattr(worker._consumer, "release", refuse_twice)
    worker._drop(HOME, "OwnershipLost", "for the test")
    system.client.send(Tally, OTHER, Add(1))
    until(lambda: system.commits(1 - HOME) == [1, 2], worker)
    system.client.send(Tally, "a", Add(1))
    until(lambda: system.commits(HOME) == [1, 2], worker)
    assert next(refusals, None) is None


def test_what_is_owned_waits_for_one_partition_to_be_joined_and_not_for_all(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, joined = owner_of_both(system), list[int]()
    monkeypatch.setattr(worker._consumer, "release", joined.append)
    worker._rejoin_at = dict.fromkeys((5, 6, 7, 8), 0.0)
    worker.step(timeout_seconds=0)
    worker.step(timeout_seconds=0)
    assert joined == [5, 6]
    for partition in (0, 1):
        worker._forget(partition)
    worker.step(timeout_seconds=0)
    assert joined == [5, 6, 7, 8], "nobody has to wait"


def test_partitions_that_are_lost_at_once_do_not_come_back_at_once(system: System) -> None:
    """A broker that comes back would have to read all logs at the same time."""
    worker = owner_of_both(system)
    worker._random = random.Random(1)
    worker._clock = Standing()
    for partition in (0, 1):
        worker._drop(partition, "OutcomeUnknown", "for the test")
    first, second = sorted(worker._rejoin_at.values())
    assert 0.5 <= first < second <= 1.0


class Byte:
    """Randomness that is always the same byte."""

    def __init__(self, byte: int) -> None:
        self.byte = byte

    def randbytes(self, n: int, /) -> bytes:
        return bytes([self.byte]) * n


@pytest.mark.parametrize(
    ("byte", "pauses"), [(0, [0.5, 1.0, 2.0, 2.0]), (128, [0.75, 1.5, 3.0, 3.0]), (192, [0.875, 1.75, 3.5, 3.5])]
)
def test_a_worker_keeps_off_for_longer_each_time_with_jitter_and_begins_anew_after_a_chunk(
    system: System, byte: int, pauses: list[float]
) -> None:
    """Workers that lose a partition at the same moments come back at moments that chance tells apart."""
    worker = owner_of_both(system)
    worker._random, worker._clock = Byte(byte), Standing()

    def loses() -> float:
        worker._drop(HOME, "OwnershipLost", "for the test")
        return worker._rejoin_at[HOME]

    assert [loses() for _ in pauses] == pauses
    worker._clock = SystemClock()
    system.client.send(Tally, "a", Add(1))
    until(lambda: system.commits(HOME) == [1, 2], worker)
    worker._clock = Standing()
    assert loses() == pauses[0]


class Standing(SystemClock):
    """A clock that does not go on."""

    def monotonic(self) -> float:
        """Always the same."""
        return 0.0
