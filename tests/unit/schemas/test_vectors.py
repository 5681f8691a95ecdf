"""The published vectors of the wire format: the bytes in `tests/vectors/wire.json` never change.

`python tests/unit/schemas/test_vectors.py` prints the file anew; a difference in an existing vector is a broken format.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from magnetar.schemas import Command, Event, Immutable, MessageId, Precision, Rejection, State, uuid7
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import DROP, RESOLVES, CommandCodec, CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import CommitCodec, Parked, Source, write_source
from magnetar.schemas.derivation import RecordCodec, record_schema

FILE = Path(__file__).parents[2] / "vectors" / "wire.json"


class Depart(Command):
    """Say that a flight has left the gate."""

    at: datetime
    delay_minutes: int


class Land(Command):
    pass


class Departed(Event):
    """A flight has left."""

    at: datetime
    delay_minutes: int
    gate: str | None


class Landed(Event):
    pass


class NotPossible(Rejection):
    stage: str


class Cabin(Enum):
    """Where somebody sits."""

    ECONOMY = "economy"
    BUSINESS = "business"


class Weight(Enum):
    LIGHT = 1
    HEAVY = 2


class Money(Immutable):
    """An amount of money."""

    amount: Annotated[Decimal, Precision(18, 2)]
    currency: Literal["EUR", "USD"] = "EUR"


class ByCard(State, wire_name="Card"):
    number: str


class Cash(State):
    pass


class Booked(Event):
    """An event with a field of every type."""

    yes: bool = True
    count: Annotated[int, "how many seats"] = -300
    rate: float = 0.5
    name: str = "Zürich"
    data: bytes = b"\x00\xff"
    price: Annotated[Decimal, Precision(38, 10)] = Decimal("-0.0000000001")
    day: date = date(1969, 12, 31)
    at: datetime = datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    opens: time = time(23, 59, 59, 999_999)
    takes: timedelta = timedelta(microseconds=-1)
    id: UUID = UUID("9aa69a93-3a2d-4281-9957-f030e84bffdf")
    cabin: Cabin = Cabin.BUSINESS
    weight: Weight = Weight.LIGHT
    word: Literal["yes", "no"] = "no"
    number: Literal[1, 2] = 2
    maybe: int | None = None
    tags: tuple[str, ...] = ("b", "a")
    maybes: tuple[float | None, ...] = (None, 1.0)
    names: frozenset[str] = frozenset({"b", "a", "ä"})
    pair: tuple[int, str | None] = (1, None)
    counts: Mapping[str, int] = {"b": 1, "a": 2}
    fare: Money = Money(Decimal("9.99"))
    rebate: Money | None = None
    fares: tuple[Money, ...] = (Money(Decimal(1), "USD"),)
    paid: ByCard | Cash = Cash()
    maybe_paid: ByCard | Cash | None = None


FULL_OF_TYPES = Booked(maybe=7, rebate=Money(Decimal(-5)), paid=ByCard("4711"), maybe_paid=Cash())
EMPTY_OF_TYPES = Booked(tags=(), maybes=(), names=frozenset(), counts={}, fares=())
SCHEMA = AggregateSchema(
    "flights", "Flight", commands=[Depart, Land], events=[Departed, Landed], rejections=[NotPossible]
)
AT = datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
OWNER = bytes(range(16))
PLAIN = CommandEnvelope("UA1545@2013-01-01T10:00Z", uuid7(1_357_035_420_000, 1), 1_357_035_420_000_000)
FULL = CommandEnvelope(
    "Zürich/7",
    uuid7(1_357_035_420_000, 2),
    1_357_035_420_000_001,
    correlation_id=uuid7(1_357_035_420_000, 1),
    causation_id=uuid7(1_357_035_420_000, 1),
    actor="tower",
    expected_version=300,
    reply_to="replies/1",
    metadata={"trace": "00-1"},
    producer="policy",
    sequence=70_000,
)
DROPPING = CommandEnvelope(
    PLAIN.aggregate_id,
    uuid7(1_357_035_420_000, 3),
    1_357_035_420_000_000,
    metadata={RESOLVES: PLAIN.command_id, DROP: "sent twice"},
)
SOURCE = Source(MessageId(7, 130, -1), 1_357_035_420_123, "9aa69a93-3a2d-4281-9957-f030e84bffdf")


def vectors() -> dict[str, Any]:
    """All vectors, made anew."""
    commands, commits = CommandCodec(SCHEMA), CommitCodec(SCHEMA)

    def commit(number: int, envelope: CommandEnvelope, version: int, tail: bytes) -> str:
        ids = encode_ids_to_time(envelope)
        return commits.encode(number, OWNER, envelope, version, ids, write_source(SOURCE), tail).hex()

    departed = Departed(AT, 2, None)
    types = record_schema(Booked, namespace="flights.flight.event")
    booked = RecordCodec(Booked, types)
    return {
        "command_schema": SCHEMA.command_schema,
        "commit_schema": SCHEMA.commit_schema,
        "commands": {
            "plain": commands.encode(PLAIN, Depart(AT, -3)).hex(),
            "full envelope": commands.encode(FULL, Land()).hex(),
            "drop": commands.encode_drop(DROPPING).hex(),
        },
        "types_schema": types,
        "types": {
            "defaults": booked.encode(Booked()).hex(),
            "full": booked.encode(FULL_OF_TYPES).hex(),
            "empty": booked.encode(EMPTY_OF_TYPES).hex(),
        },
        "commits": {
            "claim": commits.claim(OWNER, 1_357_035_420_000_000, "worker-1").hex(),
            "accepted": commit(1, PLAIN, 0, commits.accepted([departed])),
            "accepted with two events": commit(8192, FULL, 1, commits.accepted([departed, Landed()])),
            "nothing": commit(2, PLAIN, 1, commits.nothing()),
            "rejected": commit(3, PLAIN, 1, commits.rejected(NotPossible("Waiting"))),
            "parked": commit(4, PLAIN, 1, commits.parked(Parked.of("undecodable", "no command", b"junk"))),
            "nothing, and resolves": commit(6, DROPPING, 1, commits.nothing(PLAIN.command_id)),
            "rejected, and resolves": commit(7, PLAIN, 1, commits.rejected(NotPossible("Done"), FULL.command_id)),
            "parked beyond 64 kB": commit(5, PLAIN, 1, commits.parked(Parked.of("bad_id", "empty", bytes(65_537)))),
        },
    }


def test_the_bytes_are_the_published_ones() -> None:
    assert vectors() == json.loads(FILE.read_text())


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
