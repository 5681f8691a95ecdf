"""Quarantine: the events of one key that a projection raised on, and those behind them, kept back until somebody says.

What is held stands in `magnetar.quarantine`, as the bytes of its commit, and is there before anything else of its range
is in the projection's table. It is held until it was released or dropped, whatever code comes in between.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from magnetar.schemas.commit import Fact
from magnetar.schemas.framing import write_bytes, write_long

from .columns import literal
from .container import container
from .held import DROPPED, HELD, RAISED_AGAIN, RELEASED, VERSION, HeldAs, by_aggregate, open_query
from .progress import Ask
from .store import Store

DEFINITION: Final = (
    "CREATE TABLE IF NOT EXISTS magnetar.quarantine (`projection` LowCardinality(String), generation UInt32, "
    "aggregate LowCardinality(String), partition UInt16, id String, version Int64, number Int64, "
    "event LowCardinality(String), error String, schema Int64, payload String CODEC(ZSTD), "
    "step LowCardinality(String), wish String, reason String, actor String, at DateTime64(3, 'UTC') DEFAULT now64(3)) "
    "ENGINE = MergeTree ORDER BY (`projection`, generation, aggregate, partition, id, version, at) "
    "COMMENT 'events that projections could not take, with those behind them; and what was done about it'"
)
KEYS_MAX: Final = 100
"""So many keys of one table are kept back; one more stops it: then it is not these events that are wrong."""

RETRY, DROP = "retry", "drop"
ERROR_MAX: Final = 2000

_BLOCK: Final = json.dumps(
    {
        "type": "record",
        "name": "Held",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "version", "type": "long"},
            {"name": "number", "type": "long"},
            {"name": "event", "type": "string"},
            {"name": "error", "type": "string"},
            {"name": "payload", "type": "bytes"},
        ],
    }
)
STRUCTURE: Final = "id String, version Int64, number Int64, event String, error String, payload String"


class Span(NamedTuple):
    """Of one key: the versions of the first and the last event that is held, or what else their order is."""

    first: int
    last: int


class Held(NamedTuple):
    """One event that is held."""

    version: int
    schema: int
    payload: bytes
    """Its whole commit."""


class Wish(NamedTuple):
    """What somebody wants done with a key."""

    nonce: str
    id: str
    partition: int
    step: str
    """RETRY or DROP: to give up the first event, and to try those behind it."""
    reason: str
    actor: str
    is_dropped: bool
    """Whether that was done here, and only those behind it are left."""


class Holding:
    """What of the events of one range is kept back."""

    def __init__(
        self,
        known: Mapping[str, Span],
        room: int,
        settled: Collection[tuple[str, int]] = frozenset(),
        held_as: Callable[[Fact], HeldAs] = by_aggregate,
    ) -> None:
        """`known` is what is held of the partition; `room` is how many keys more may be; `settled` are the ids and
        versions of events of the range that were held once, and are none of its business any more."""
        self._held_as = held_as
        self.known = dict(known)
        self.settled = settled
        self.found: list[tuple[Fact, str]] = []
        """What is to be written down, with the error of those that were raised on."""
        self._room = room

    def takes(self, fact: Fact) -> bool:
        """Whether the event belongs to what is held."""
        key, order = held = self._held_as(fact)
        if held in self.settled:
            return True
        span = self.known.get(key)
        if span is None or order < span.first:
            return False
        if order > span.last:  # otherwise it stands there: its range is being replayed
            self.found.append((fact, ""))
            self.known[key] = Span(span.first, order)
        return True

    def begin(self, fact: Fact, error: Exception) -> bool:
        """Keep an event back that was raised on, and what is behind it. Returns False if there is no room."""
        if self._room <= 0:
            return False
        self._room -= 1
        self.found.append((fact, _said(error)))
        key, order = self._held_as(fact)
        self.known[key] = Span(order, order)
        return True


def _said(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:ERROR_MAX]
    except Exception:  # noqa: BLE001 - an error's `__str__` is the user's code, and may raise anything itself
        return type(error).__name__


class Quarantine:
    """What is held of one generation of a projection's rows that come from one aggregate."""

    def __init__(
        self,
        store: Store,
        projection: str,
        generation: int,
        aggregate: str,
        held_as: Callable[[Fact], HeldAs] = by_aggregate,
    ) -> None:
        """`aggregate` with its context."""
        self._store, self._held_as = store, held_as
        self._projection, self._generation, self._aggregate = projection, generation, aggregate

    def has_any(self, partition: int) -> bool:
        """Whether anything was ever held: one cheap question instead of several, where nothing was."""
        ((count,),) = self._store.query(f"SELECT count() FROM magnetar.quarantine WHERE {self._where(partition)}")
        return bool(count)

    def spans(self, partition: int) -> dict[str, Span]:
        """By key, what is held."""
        rows = self._store.query(f"SELECT id, min(version), max(version) FROM ({self._open(partition)}) GROUP BY id")
        return {id: Span(first, last) for id, first, last in rows}

    def settled(self, partition: int, first: int, last: int) -> frozenset[tuple[str, int]]:
        """Ids and versions of the events of these commits that were held, and have been released or dropped."""
        of = self._where(partition)
        rows = self._store.query(
            f"SELECT id, version FROM magnetar.quarantine WHERE {of} AND step = '{HELD}' "
            f"AND number BETWEEN {first} AND {last} "
            f"AND (id, version) NOT IN (SELECT id, version FROM ({self._open(partition)}))"
        )
        return frozenset((id, version) for id, version in rows)

    def held(self, partition: int, id: str) -> list[Held]:
        """What is held of a key, in the order of its events."""
        rows = self._store.query(
            "SELECT version, any(schema), any(base64Encode(payload)) FROM "
            f"({self._open(partition)}) WHERE id = {literal(id)} GROUP BY version ORDER BY version"
        )
        return [Held(version, schema, b64decode(payload)) for version, schema, payload in rows]

    def statement(
        self,
        partition: int,
        schema: int,
        found: Iterable[tuple[Fact, str]],
        payload_of: Callable[[Fact], bytes],
        name_of: Callable[[Fact], str],
    ) -> tuple[tuple[bytes, bytes, bytes], Callable[[str, str], str]]:
        """The block to be inserted, and, from its source and the guard, the statement that inserts it."""
        rows = [
            b"".join(
                (
                    write_bytes(self._held_as(fact).key.encode()),
                    write_long(self._held_as(fact).order),
                    write_long(fact.number),
                    write_bytes(name_of(fact).encode()),
                    write_bytes(error.encode(errors="replace")),
                    write_bytes(payload_of(fact)),
                )
            )
            for fact, error in found
        ]

        def statement(source: str, guard: str) -> str:
            return (
                "INSERT INTO magnetar.quarantine (`projection`, generation, aggregate, partition, step, schema, id, "
                f"version, number, event, error, payload) SELECT {literal(self._projection)}, {self._generation}, "
                f"{literal(self._aggregate)}, {partition}, '{HELD}', {schema}, id, version, number, event, error, "
                f"payload FROM {source} WHERE {guard}"
            )

        return container(_BLOCK, rows), statement

    def outcome(self, partition: int, wish: Wish, step: str, version: int, error: str, guard: str) -> str:
        """The statement that writes down what became of a wish: RELEASED or DROPPED up to a version, RAISED_AGAIN."""
        values = ", ".join(literal(value) for value in (wish.id, error, step, wish.nonce, wish.reason, wish.actor))
        return (
            "INSERT INTO magnetar.quarantine (`projection`, generation, aggregate, partition, version, id, error, "
            f"step, wish, reason, actor) SELECT {literal(self._projection)}, {self._generation}, "
            f"{literal(self._aggregate)}, {partition}, {version}, {values} WHERE {guard}"
        )

    def wishes(self) -> list[Wish]:
        """What was wished of keys that are held here, and has not been done."""
        of = f"`projection` = {literal(self._projection)} AND aggregate = {literal(self._aggregate)}"
        done = f"SELECT wish FROM magnetar.quarantine WHERE {of} AND generation = {self._generation} AND step"
        rows = self._store.query(
            f"SELECT wish, id, partition, step, reason, actor, wish IN ({done} = '{DROPPED}') AS is_dropped "
            f"FROM magnetar.quarantine WHERE {of} AND generation = 0 "
            f"AND wish NOT IN ({done} IN ('{RELEASED}', '{RAISED_AGAIN}')) "
            f"AND (partition, id) IN (SELECT partition, id FROM ({self._open(None)})) ORDER BY at, wish"
        )
        return [
            Wish(nonce, id, nth, step, reason, actor, bool(is_dropped))
            for nonce, id, nth, step, reason, actor, is_dropped in rows
        ]

    def _open(self, partition: int | None) -> str:
        return open_query(self._where(partition))

    def _where(self, partition: int | None) -> str:
        return (
            f"`projection` = {literal(self._projection)} AND generation = {self._generation} "
            f"AND aggregate = {literal(self._aggregate)}"
        ) + ("" if partition is None else f" AND partition = {partition}")


class QuarantinedKey(NamedTuple):
    """A key that is held, for whoever looks."""

    projection: str
    generation: int
    aggregate: str
    id: str
    partition: int
    version: int
    """Of the first event that is held."""
    event: str
    error: str
    events: int
    """How many are held."""
    age_seconds: float
    """Since the first was."""


def quarantined(ask: Ask, context: str) -> list[QuarantinedKey]:
    """All that is held of a context's projections, the oldest first."""
    where = f"startsWith(aggregate, {literal(context + '/')})"
    rows = ask(
        "SELECT `projection` AS p, generation AS g, aggregate AS a, id, partition AS nth, "
        f"toString({VERSION.format('min(version)')}) AS v, "
        "argMin(event, version) AS e, argMin(error, version) AS why, toString(count()) AS n, "
        "dateDiff('millisecond', min(at), now64(3)) / 1000 AS age "
        f"FROM ({open_query(where)}) GROUP BY p, g, a, id, nth ORDER BY age DESC, id"
    )
    prefix = f"{context}/"
    return [
        QuarantinedKey(
            row["p"], row["g"], row["a"].removeprefix(prefix), row["id"], row["nth"], int(row["v"]), row["e"],
            row["why"], int(row["n"]), float(row["age"]),
        )
        for row in rows
    ]  # fmt: skip


def wish_statement(
    projection: str, aggregate: str, partition: int, id: str, *, nonce: str, step: str, reason: str, actor: str
) -> str:
    """The statement that writes a wish down, for all generations."""
    values = ", ".join(literal(value) for value in (projection, aggregate, id, step, nonce, reason, actor))
    return (
        "INSERT INTO magnetar.quarantine (generation, partition, `projection`, aggregate, id, step, wish, reason, "
        f"actor) SELECT 0, {partition}, {values}"
    )


class Settled(NamedTuple):
    """What became of a wish in one generation of a table."""

    generation: int
    released: int
    """The version of the last event that was let in; 0 if none was."""
    dropped: int
    """The version of the event that was given up; 0 if none was."""
    error: str
    """What was raised again, if anything was."""

    @property
    def is_tried(self) -> bool:
        """Whether that is all."""
        return bool(self.released or self.error)


def settled(ask: Ask, nonces: Iterable[str]) -> list[tuple[str, Settled]]:
    """By wish, what became of it in each generation, as far as it is done."""
    names = ", ".join(literal(nonce) for nonce in nonces)
    released, dropped = (f"maxIf(version, step = '{step}')" for step in (RELEASED, DROPPED))
    rows = ask(
        f"SELECT wish, generation AS g, toString({VERSION.format(released)}) AS released, "
        f"toString({VERSION.format(dropped)}) AS dropped, anyIf(error, step = '{RAISED_AGAIN}') AS error "
        f"FROM magnetar.quarantine WHERE wish IN ({names}) AND generation > 0 GROUP BY wish, g ORDER BY g"
    )
    return [(row["wish"], Settled(row["g"], int(row["released"]), int(row["dropped"]), row["error"])) for row in rows]
