"""One command in, exactly one commit out: the logic of a partition."""

import json
import re
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate, Decision, IdWindow, PartitionProcessor, contract_of
from magnetar.aggregates.budget import IDS_MAX, Allowance
from magnetar.aggregates.id_window import WINDOW_MS
from magnetar.schemas import Command, Event, MessageId, Rejection, partition_of, uuid7
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import DROP, RESOLVES, CommandCodec, CommandEnvelope
from magnetar.schemas.commit import Commit, CommitCodec

AT_MS = 1_700_000_000_000
INCARNATION = "9aa69a93-3a2d-4281-9957-f030e84bffdf"


class Add(Command):
    amount: int


class Shout(Command):
    text: str


class Added(Event):
    amount: int
    total: int


class Shouted(Event):
    text: str


class TooMuch(Rejection):
    total: int


class Counter(Aggregate):
    total: int = 0

    def execute(self, command: Add | Shout) -> Added | tuple[Added, Added] | Shouted | TooMuch | None:
        match command:
            case Add(0):
                return None
            case Add(13):
                raise RuntimeError("unlucky")
            case Add(amount) if self.total + amount > 100:
                return TooMuch(self.total)
            case Add(amount) if amount < 0:
                return Added(amount, self.total + amount), Added(0, self.total + amount)
            case Add(amount):
                return Added(amount, self.total + amount)
            case Shout(text):
                return Shouted(text * 100)

    def apply(self, event: Added | Shouted) -> Self:
        match event:
            case Added(_, total):
                return self.replace(total=total)
            case Shouted():
                return self


CONTRACT = contract_of(Counter)
SCHEMA = AggregateSchema(
    "counts", "Counter", commands=CONTRACT.commands, events=CONTRACT.events, rejections=CONTRACT.rejections
)
COMMANDS, COMMITS = CommandCodec(SCHEMA), CommitCodec(SCHEMA)
OWNER = b"o" * 16


class Partition:
    """A processor with its log."""

    def __init__(
        self,
        *,
        partition: int = 0,
        partitions: int = 1,
        bytes_max: int = 1_000_000,
        window_ms: int = WINDOW_MS,
        ids_max: int = IDS_MAX,
    ) -> None:
        self.processor = PartitionProcessor(
            Counter,
            SCHEMA,
            partition=partition,
            partitions=partitions,
            commit_bytes_max=bytes_max,
            ids=IdWindow(window_ms=window_ms, allowance=Allowance(ids_max)),
        )
        self.processor.begin(OWNER, INCARNATION)
        self.log: list[Commit] = []
        self.payloads: list[bytes] = []
        self.offset = 0

    def send(self, key: str, payload: bytes, *, at_ms: int = AT_MS) -> Decision:
        self.offset += 1
        decision = self.processor.decide(MessageId(self.offset), key, payload, at_ms)
        if decision.commit is not None:
            self.payloads.append(decision.commit)
            self.log.append(COMMITS.decode(decision.commit))
        return decision

    def add(self, amount: int, *, id: str = "a", n: int | None = None, at_ms: int = AT_MS, **more: Any) -> Decision:
        command_id = uuid7(AT_MS, self.offset + 1 if n is None else n)
        envelope = CommandEnvelope(id, command_id, AT_MS * 1000, **more)
        return self.send(id, COMMANDS.encode(envelope, Add(amount)), at_ms=at_ms)


def test_each_outcome_leaves_one_commit_with_contiguous_numbers() -> None:
    partition = Partition()
    for amount in (5, 0, 200, 13, -2):
        partition.add(amount)
    assert [c.outcome for c in partition.log] == ["accepted", "nothing", "rejected", "parked", "accepted"]
    assert [c.number for c in partition.log] == [1, 2, 3, 4, 5]
    assert [c.version for c in partition.log] == [0, 1, 1, 1, 1]
    assert partition.log[2].rejection == TooMuch(5)
    assert partition.log[4].events == (Added(-2, 3), Added(0, 3))
    assert partition.processor.state_of("a") == (3, Counter(3))
    assert all(c.owner == OWNER for c in partition.log)
    assert [c.source.id.ledger for c in partition.log] == [1, 2, 3, 4, 5]


def test_a_brain_that_raises_parks_its_command_with_the_commands_bytes() -> None:
    partition = Partition()
    partition.add(13)
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.reason == "brain_raised"
    assert re.fullmatch(r"RuntimeError: unlucky at \S*test_processor\.py:\d+", parked.detail)
    assert parked.command is not None
    assert COMMANDS.decode(parked.command).command == Add(13)


def test_a_repeated_id_finds_its_first_outcome_and_leaves_no_commit() -> None:
    partition = Partition()
    partition.add(5, n=7)
    partition.add(1)
    again = partition.add(5, n=7)
    assert (again.commit, again.number, again.outcome) == (None, 1, "repeated")
    assert len(partition.log) == 2


def test_a_redelivered_command_is_answered_by_its_commit_and_not_decided_again() -> None:
    first = Partition()
    for amount in (5, 6, 200):
        first.add(amount)
    second = Partition()
    for payload in first.payloads:
        second.processor.replay(COMMITS.decode_effect(payload))
    second.processor.begin(b"p" * 16, INCARNATION)
    redelivered = [second.add(amount) for amount in (5, 6, 200)]
    assert [(d.outcome, d.number) for d in redelivered] == [("redelivered", n) for n in (1, 2, 3)]
    assert second.processor.state_of("a") == first.processor.state_of("a")
    assert second.add(1).number == 4


def test_bytes_that_were_parked_are_not_parked_again_when_redelivered() -> None:
    first, second = Partition(), Partition()
    first.send("a", b"junk")
    second.processor.replay(COMMITS.decode_effect(first.payloads[0]))
    second.processor.begin(OWNER, INCARNATION)
    assert second.send("a", b"junk").outcome == "redelivered"


def test_bytes_that_were_parked_are_not_parked_again_when_the_same_owner_gets_them_again() -> None:
    partition = Partition()
    partition.send("a", b"junk")
    partition.offset = 0
    assert partition.send("a", b"junk").outcome == "redelivered"


def test_a_topic_made_anew_has_commands_that_were_not_decided() -> None:
    first, second = Partition(), Partition()
    first.send("a", b"junk")
    second.processor.replay(COMMITS.decode_effect(first.payloads[0]))
    second.processor.begin(OWNER, "00000000-3a2d-4281-9957-f030e84bffdf")
    assert second.send("a", b"junk").outcome == "parked"


@pytest.mark.parametrize(
    ("key", "id", "reason"),
    [
        ("a", "", "bad_id"),
        ("x" * 10_000, "x" * 10_000, "bad_id"),
        ("a\nb", "a\nb", "bad_id"),
        ("a", "b", "misrouted"),
    ],
)
def test_an_id_that_cannot_be_one_is_parked(key: str, id: str, reason: str) -> None:
    partition = Partition()
    payload = COMMANDS.encode(CommandEnvelope(id, uuid7(AT_MS, 1), 0), Add(1))
    partition.send(key, payload)
    (commit,) = partition.log
    assert commit.parked is not None
    assert (commit.parked.reason, commit.parked.command) == (reason, payload)
    assert commit.aggregate_id in ("", id)


def test_a_command_on_a_partition_where_its_aggregate_does_not_live_is_parked() -> None:
    home = partition_of("a", 4)
    partition = Partition(partition=(home + 1) % 4, partitions=4)
    partition.add(1)
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.reason == "misrouted"
    assert f"belongs on {home}" in parked.detail
    assert Partition(partition=home, partitions=4).add(1).outcome == "accepted"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"command_id": "9aa69a93-3a2d-4281-9957-f030e84bffdf"}, "bad_command_id"),
        ({"command_id": "no"}, "bad_command_id"),
        ({"correlation_id": "x"}, "undecodable"),
        ({"causation_id": "x"}, "undecodable"),
        ({"issued_at_us": -1}, "undecodable"),
        ({"expected_version": 1}, "version_conflict"),
    ],
)
def test_an_envelope_that_cannot_be_is_parked_and_its_commit_can_be_read(change: dict[str, Any], reason: str) -> None:
    partition = Partition()
    fields: dict[str, Any] = {"aggregate_id": "a", "command_id": uuid7(AT_MS, 1), "issued_at_us": 0, **change}
    partition.send("a", COMMANDS.encode(CommandEnvelope(**fields), Add(1)))
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.reason == reason


def test_a_command_type_that_is_not_declared_is_parked_once() -> None:
    class Extra(Command):
        pass

    wider = AggregateSchema("counts", "Counter", commands=[Add, Extra, Shout], events=[Added], rejections=[])
    payload = CommandCodec(wider).encode(CommandEnvelope("a", uuid7(AT_MS, 1), 0), Shout("x"))
    partition = Partition()
    partition.send("a", payload)
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.reason == "unknown_type"
    assert partition.send("a", payload).outcome == "repeated"


def test_a_commit_over_the_limit_is_parked_in_its_place() -> None:
    partition = Partition(bytes_max=3000)
    payload = COMMANDS.encode(CommandEnvelope("a", uuid7(AT_MS, 1), 0), Shout("x" * 100))
    partition.send("a", payload)
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.reason == "too_large"
    assert partition.processor.state_of("a") == (0, Counter())


def test_a_parked_commit_stays_within_the_limit_whatever_the_envelope_carries() -> None:
    partition = Partition(bytes_max=100_000)
    metadata = {"x": "y" * 150_000}
    payload = COMMANDS.encode(CommandEnvelope("a", uuid7(AT_MS, 1), 0, metadata=metadata), Add(13))
    decision = partition.send("a", payload)
    assert decision.commit is not None
    assert len(decision.commit) < 100_000
    parked = partition.log[0].parked
    assert parked is not None
    assert parked.command is None
    assert parked.sha256 is not None


def test_an_outcome_that_was_not_declared_parks_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "execute", lambda self, command: "hello")
    partition = Partition()
    partition.add(1)
    parked = partition.log[0].parked
    assert parked is not None
    assert "UndeclaredOutcome" in parked.detail


def test_an_event_of_the_wrong_type_parks_the_command_and_leaves_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = "five"
    monkeypatch.setattr(Counter, "execute", lambda self, command: Added(wrong, 5))
    partition = Partition()
    partition.add(1)
    assert partition.log[0].outcome == "parked"
    assert partition.processor.state_of("a") == (0, Counter())


def test_within_the_window_a_repeat_is_found_and_beyond_it_expired() -> None:
    partition = Partition(window_ms=1000)
    partition.add(1, n=1, at_ms=AT_MS + 10)
    assert partition.add(1, n=1, at_ms=AT_MS + 1000).outcome == "repeated"
    partition.add(1, n=2, at_ms=AT_MS + 1001)
    parked = partition.log[-1].parked
    assert parked is not None
    assert parked.reason == "expired"


def test_ids_beyond_the_cap_are_forgotten_and_their_repeats_expired() -> None:
    partition = Partition(ids_max=80)
    times = [AT_MS + n * 1000 for n in range(1, 200)]
    payloads = [COMMANDS.encode(CommandEnvelope("a", uuid7(at, at), AT_MS * 1000), Add(0)) for at in times]
    first = [partition.send("a", payload, at_ms=at).outcome for at, payload in zip(times, payloads, strict=True)]
    assert set(first) == {"nothing"}
    assert partition.send("a", payloads[-1], at_ms=times[-1]).outcome == "repeated"
    assert partition.send("a", payloads[0], at_ms=times[-1]).outcome == "parked"
    parked = partition.log[-1].parked
    assert parked is not None
    assert parked.reason == "expired"


def test_what_a_commit_says_of_its_schema_is_json() -> None:
    assert json.loads(SCHEMA.commit_json)["name"] == "Commit"


PARKED_ID = uuid7(AT_MS, 999)


@pytest.mark.parametrize(
    ("amount", "outcome"), [(5, "accepted"), (0, "nothing"), (200, "rejected"), (13, "parked"), (-2, "accepted")]
)
def test_a_retry_is_decided_as_any_command_and_its_commit_resolves_the_parked_one(amount: int, outcome: str) -> None:
    partition = Partition()
    partition.add(1)
    partition.add(amount, metadata={RESOLVES: PARKED_ID, "trace": "x"})
    assert [(c.outcome, c.resolves) for c in partition.log] == [("accepted", None), (outcome, PARKED_ID)]
    assert partition.log[1].metadata == {RESOLVES: PARKED_ID, "trace": "x"}


def drop(partition: Partition, metadata: dict[str, str]) -> Commit:
    envelope = CommandEnvelope("a", uuid7(AT_MS, 500), AT_MS * 1000, metadata=metadata)
    partition.send("a", COMMANDS.encode_drop(envelope))
    return partition.log[-1]


def test_a_drop_changes_nothing_and_its_commit_resolves_the_parked_one() -> None:
    partition = Partition()
    partition.add(5)
    commit = drop(partition, {RESOLVES: PARKED_ID, DROP: "sent by mistake"})
    assert (commit.outcome, commit.resolves, commit.version) == ("nothing", PARKED_ID, 1)
    assert commit.metadata[DROP] == "sent by mistake"
    assert partition.processor.state_of("a") == (1, Counter(5))


def test_a_drop_is_decided_once() -> None:
    partition = Partition()
    drop(partition, {RESOLVES: PARKED_ID, DROP: "no"})
    drop(partition, {RESOLVES: PARKED_ID, DROP: "no"})
    assert len(partition.log) == 1


@pytest.mark.parametrize("metadata", [{DROP: "why"}, {DROP: "why", RESOLVES: "x"}])
def test_a_drop_that_does_not_say_of_what_is_parked(metadata: dict[str, str]) -> None:
    commit = drop(Partition(), metadata)
    assert commit.parked is not None
    assert (commit.parked.reason, commit.resolves) == ("undecodable", None)


def test_a_message_without_a_command_that_is_no_drop_is_parked() -> None:
    commit = drop(Partition(), {RESOLVES: PARKED_ID})
    assert commit.parked is not None
    assert commit.parked.reason == "unknown_type"


def test_a_drop_settles_a_command_of_an_aggregate_that_has_ended() -> None:
    class Once(Aggregate):
        done: bool = False

        def execute(self, command: Add) -> Added:
            return Added(1, 1)

        def apply(self, event: Added) -> Self:
            return self.replace(done=True)

        def is_ended(self) -> bool:
            return self.done

    schema = AggregateSchema("counts", "Once", commands=[Add], events=[Added], rejections=[])
    processor = PartitionProcessor(Once, schema, partition=0, partitions=1, commit_bytes_max=10_000)
    processor.begin(OWNER, INCARNATION)
    codec = CommandCodec(schema)
    for n in (1, 2):
        processor.decide(MessageId(n), "a", codec.encode(CommandEnvelope("a", uuid7(AT_MS, n), 0), Add(1)), AT_MS)
    envelope = CommandEnvelope("a", uuid7(AT_MS, 3), 0, metadata={RESOLVES: uuid7(AT_MS, 2), DROP: "too late"})
    assert processor.decide(MessageId(3), "a", codec.encode_drop(envelope), AT_MS).outcome == "nothing"
