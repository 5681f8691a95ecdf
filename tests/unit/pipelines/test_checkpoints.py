"""Checkpoints on the embedded log: what recovery reads, and what it does when a checkpoint does not fit the log."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate, PartitionProcessor
from magnetar.pipelines import Pipeline
from magnetar.pipelines.checkpoint_building import Built, CheckpointBuilder
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.schemas import Command, Event, Meta, TopicKind, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from magnetar.schemas.commit import Effect

AGGREGATES = 40
NEVER = 1 << 40


class Add(Command):
    amount: int


class Close(Command):
    pass


class Added(Event):
    amount: int
    entry: int


class Closed(Event):
    pass


class Tally(Aggregate):
    total: int = 0
    note: str = ""
    is_closed: bool = False

    def is_ended(self) -> bool:
        return self.is_closed

    def execute(self, command: Add | Close, meta: Meta) -> Added | Closed:
        return Closed() if isinstance(command, Close) else Added(command.amount, meta.version + 1)

    def apply(self, event: Added | Closed) -> Self:
        if isinstance(event, Closed):
            return self.replace(is_closed=True)
        return self.replace(total=self.total + event.amount, note=f"{self.note[-40:]}/{event.entry}")


class NewerTally(Tally, wire_name="Tally"):
    """The next release, whose `apply` makes something else of the same events."""

    revision = 2

    def apply(self, event: Added | Closed) -> Self:
        made = super().apply(event)
        return made if isinstance(event, Closed) else made.replace(note="new")


class HugeTally(Tally, wire_name="Tally"):
    """Its `apply` makes numbers that no stored state can hold."""

    def apply(self, event: Added | Closed) -> Self:
        return self.replace(total=2**70)


class TextTally(Tally, wire_name="Tally"):
    """Its `apply` makes a state that the class cannot read."""

    def apply(self, event: Added | Closed) -> Self:
        many: Any = "many"
        return self.replace(total=many)


tallies = Pipeline("tallies", aggregates=[Tally], partitions=1)
SCHEMA = tallies.schemas["Tally"]
COMMANDS, EVENTS, CHECKPOINTS = (
    tallies.topic("Tally", kind) for kind in (TopicKind.COMMANDS, TopicKind.EVENTS, TopicKind.CHECKPOINTS)
)
CODEC = CommandCodec(SCHEMA)


class System:
    """One partition, and workers that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()
        self.sent = 0
        self.workers = 0
        self.made_ms = SystemClock().now_ms()

    def open(self) -> None:
        self.log = SqliteLog(self.folder, SystemClock())
        provision(tallies, self.log)
        self.publisher = self.log.publisher(COMMANDS, schema=SCHEMA.command_json)

    def send(self, count: int, *, same_id: int | None = None) -> None:
        now_ms, entries = SystemClock().now_ms(), []
        for _ in range(count):
            self.sent += 1
            id = f"t{self.sent % AGGREGATES}"
            made_ms = self.made_ms if same_id else now_ms
            envelope = CommandEnvelope(id, uuid7(made_ms, same_id or self.sent), now_ms * 1000)
            entries.append(Entry(id, CODEC.encode(envelope, Add(self.sent))))
        self.publisher.publish(0, entries, timeout_seconds=10)

    def end(self, id: str) -> None:
        now_ms = SystemClock().now_ms()
        envelope = CommandEnvelope(id, uuid7(now_ms, random.getrandbits(60)), now_ms * 1000)
        self.publisher.publish(0, [Entry(id, CODEC.encode(envelope, Close()))], timeout_seconds=10)

    def worker(self, aggregate: type[Tally] = Tally, *, commits: int = 100, states_max: int = 1000) -> Worker:
        self.workers += 1
        return Worker(
            self.log,
            aggregate,
            SCHEMA,
            partitions=1,
            name=f"w{self.workers}",
            clock=SystemClock(),
            random=random.SystemRandom(),
            options=WorkerOptions(chunk_messages_max=10, checkpoint_commits=commits, states_max=states_max),
        )

    def run(self, aggregate: type[Tally] = Tally, **options: int) -> dict[str, tuple[int, Any]]:
        """Let a worker decide all there is, after one more command, and give the states it ends with."""
        self.send(1)
        worker = self.worker(aggregate, **options)
        self.decide(worker)
        processor = worker._owned[0].processor
        states = {f"t{n}": processor.state_of(f"t{n}") for n in range(AGGREGATES)}
        worker.close()
        return states

    def decide(self, worker: Worker) -> None:
        """Let it decide all there is."""
        while worker.step(timeout_seconds=0.1):
            pass

    def builder(self, aggregate: type[Tally] = Tally) -> CheckpointBuilder:
        return CheckpointBuilder(self.log, aggregate, SCHEMA, partitions=1, random=random.SystemRandom())

    def blocks(self) -> int:
        reader = self.log.reader(CHECKPOINTS, 0, after=None)
        found = len(reader.read(messages_max=100_000, timeout_seconds=0))
        reader.close()
        return found

    def damage(self, sql: str) -> None:
        """Change the file of the checkpoints."""
        connection = sqlite3.connect(self.folder / "log" / str(CHECKPOINTS) / "0.sqlite")
        with connection:
            connection.execute(sql)
        connection.close()

    def close(self) -> None:
        self.log.close()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "data")
    yield system
    system.close()


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the commits that recoveries read."""
    numbers: list[int] = []
    replay = PartitionProcessor.replay

    def counting(self: Any, commit: Effect) -> None:
        numbers.append(commit.number)
        replay(self, commit)

    monkeypatch.setattr(PartitionProcessor, "replay", counting)
    return numbers


def folded(system: System, aggregate: type[Tally] = Tally) -> dict[str, tuple[int, Any]]:
    """The states by a plain fold over everything that was sent."""
    states: dict[str, tuple[int, Any]] = {f"t{n}": (0, aggregate()) for n in range(AGGREGATES)}
    for n in range(1, system.sent + 1):
        version, state = states[f"t{n % AGGREGATES}"]
        states[f"t{n % AGGREGATES}"] = (version + 1, state.apply(Added(n, version + 1)))
    return states


def test_recovery_reads_the_tail_of_the_log_and_comes_to_the_same_states(system: System, replayed: list[int]) -> None:
    system.send(1000)
    assert system.run() == folded(system)
    replayed.clear()
    assert system.run() == folded(system)
    assert 0 < len(replayed) < 400
    assert replayed == list(range(replayed[0], 1002))


def test_a_worker_says_that_it_is_alive_for_each_block_of_a_checkpoint_that_it_reads(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.send(1000)
    system.run()
    beats, blocks = list[None](), list[None]()
    monkeypatch.setattr(PartitionProcessor, "restore_block", lambda *_: blocks.append(None))
    worker = system.worker()
    worker._beat = lambda: beats.append(None)
    found = (checkpoints := worker._checkpoints_of(0)).find()
    assert len(beats) >= system.blocks(), "as many as it looks through"
    beats.clear()
    checkpoints.restore(found[0], worker._processor(0))
    assert len(beats) > len(blocks) > 0
    worker.close()


def test_states_that_spill_to_disk_are_those_that_stay_in_memory(system: System) -> None:
    system.send(1000)
    assert system.run(states_max=3) == folded(system)
    assert system.run(states_max=3) == folded(system)
    assert system.run(states_max=1000) == folded(system)


def test_a_damaged_round_is_passed_over_for_the_one_before(system: System, replayed: list[int]) -> None:
    system.send(1000)
    system.run()
    system.damage("UPDATE messages SET payload = zeroblob(100) WHERE offset = (SELECT max(offset) FROM messages)")
    replayed.clear()
    assert system.run() == folded(system)
    assert 100 < len(replayed) < 600


def test_without_a_whole_round_the_log_is_read_from_its_start(system: System, replayed: list[int]) -> None:
    system.send(1000)
    system.run()
    system.damage("UPDATE messages SET payload = substr(payload, 1, 20)")
    replayed.clear()
    assert system.run() == folded(system)
    assert replayed[0] == 1


def test_a_checkpoint_of_another_history_is_not_used(system: System, tmp_path: Path) -> None:
    """The log was put back to an older copy, and went on; the checkpoints of what is lost are still there."""
    system.send(150)
    system.run()
    system.log.close()
    events = system.folder / "log" / str(EVENTS)
    shutil.copytree(events, tmp_path / "copy")
    older, system.sent = system.sent, system.sent
    system.open()
    system.send(600)
    system.run()
    system.log.close()
    for topic, before in ((EVENTS, tmp_path / "copy"),):
        shutil.rmtree(system.folder / "log" / str(topic))
        shutil.copytree(before, system.folder / "log" / str(topic))
    for file in ("0.sqlite", "consumers.sqlite"):
        connection = sqlite3.connect(system.folder / "log" / str(COMMANDS) / file)
        table = "messages" if file == "0.sqlite" else "acknowledged"
        with connection:
            connection.execute(f"DELETE FROM {table} WHERE offset > {older}")
        connection.close()
    system.open()
    system.sent = older
    assert system.run() == folded(system)


def test_a_raised_revision_folds_anew_and_both_releases_keep_their_rounds(system: System, replayed: list[int]) -> None:
    system.send(1000)
    system.run()
    replayed.clear()
    assert system.run(NewerTally) == folded(system, NewerTally)
    assert len(replayed) > 1000
    system.send(1500)
    system.run(NewerTally)
    for release in (Tally, NewerTally):
        replayed.clear()
        assert system.run(release) == folded(system, release)
        assert 0 < len(replayed) < 2000


def test_a_checkpoint_built_before_a_roll_spares_the_new_release_the_log(system: System, replayed: list[int]) -> None:
    """1. The old release works. 2. A checkpoint is built for the new one, in the middle of a round of the old one's.
    3. The old release goes on, and drops old rounds. 4. The new one takes over."""
    system.send(1000)
    old = system.worker()
    system.decide(old)
    assert system.builder(NewerTally).build(0) == Built(0, 1000, 1000, AGGREGATES + 1000 // 32)
    assert system.builder(NewerTally).build(0) == Built(0, 1000, 0, 0)
    system.send(1000)
    system.decide(old)
    old.close()
    replayed.clear()
    assert system.run(NewerTally) == folded(system, NewerTally)
    assert replayed == list(range(1001, 2001))


def test_a_checkpoint_that_is_built_again_goes_on_from_the_one_before(system: System, replayed: list[int]) -> None:
    system.send(300)
    system.run(commits=NEVER)
    system.builder().build(0)
    system.send(100)
    system.run(commits=NEVER)
    replayed.clear()
    built = system.builder().build(0)
    assert (built.number, built.read) == (402, 101)
    assert replayed == list(range(302, 403))
    replayed.clear()
    assert system.run(commits=NEVER) == folded(system)
    assert replayed == []


def test_nothing_is_built_where_nothing_was_decided(system: System) -> None:
    assert system.builder().build(0) == Built(0, 0, 0, 0)
    assert system.log.end(CHECKPOINTS, 0) is None


def test_old_rounds_are_dropped(system: System) -> None:
    blocks = []
    for _ in range(6):
        system.send(1000)
        system.run()
        blocks.append(system.blocks())
    assert max(blocks) < 40


def test_a_repeat_of_what_was_decided_before_the_checkpoint_leaves_no_commit(system: System) -> None:
    system.send(1, same_id=7)
    system.send(500)
    system.run()
    before = system.log.end(EVENTS, 0)
    system.send(1, same_id=7)
    worker = system.worker()
    while worker.step(timeout_seconds=0.1):
        pass
    worker.close()
    after = system.log.end(EVENTS, 0)
    assert before is not None
    assert after is not None
    assert after.ledger == before.ledger + 1  # the claim


def test_an_ended_aggregate_leaves_a_stub_and_parks_what_comes_later(system: System) -> None:
    system.send(300)
    system.end("t7")
    system.send(300)
    for _ in range(2):
        states = system.run()
        assert states["t7"][1] is None
        assert states["t7"][0] == 9
    reader = system.log.reader(EVENTS, 0, after=None)
    payloads = [m.payload for m in reader.read(messages_max=10_000, timeout_seconds=0)]
    reader.close()
    assert sum(b"it takes no more commands" in payload for payload in payloads) >= 7


def test_a_checkpoint_that_cannot_be_written_costs_only_itself(system: System) -> None:
    system.send(50)
    system.run()
    shutil.rmtree(system.folder / "log" / str(CHECKPOINTS))
    system.log.close()
    system.open()
    system.damage("DROP TABLE owner")
    system.send(500)
    assert system.run() == folded(system)
    assert system.blocks() == 0


def test_a_state_that_cannot_be_stored_costs_checkpoints_and_no_worker(system: System, replayed: list[int]) -> None:
    system.send(300)
    assert system.run(HugeTally)["t1"][1].total == 2**70
    replayed.clear()
    assert system.run(HugeTally)["t1"][1].total == 2**70
    assert min(replayed) == 1


def test_a_state_that_cannot_be_spilled_refuses_its_partition(system: System) -> None:
    system.send(300)
    worker = system.worker(HugeTally, states_max=10)
    while worker.step(timeout_seconds=0.1):
        pass
    assert "A state of Tally cannot be stored: " in worker.refused[0].what
    worker.close()


def test_a_state_that_its_class_cannot_read_refuses_its_partition_at_the_next_command(system: System) -> None:
    system.send(AGGREGATES)
    worker = system.worker(TextTally)
    system.decide(worker)
    assert worker.refused == {}
    system.send(1)
    system.decide(worker)
    assert "A state of Tally cannot be read: Expected `int`, got `str`" in worker.refused[0].what
    worker.close()
    states = system.run()
    assert {state.total for _, state in states.values()} != {"many"}
    assert [version for version, _ in states.values()].count(2) == 2


def test_without_the_file_of_the_checkpoints_the_log_is_read_from_its_start(
    system: System, replayed: list[int]
) -> None:
    system.send(500)
    system.run()
    system.damage("DROP TABLE messages")
    replayed.clear()
    assert system.run() == folded(system)
    assert min(replayed) == 1
