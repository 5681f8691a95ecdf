"""Tables of which events can be kept back that the projection raises on, and let in later."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from magnetar.schemas import PartitionRefused, wire_name
from magnetar.schemas.commit import Fact

from .columns import literal
from .held import DROPPED, RAISED_AGAIN, RELEASED, HeldAs, by_aggregate
from .leased_table import LeasedTable
from .quarantine import DROP, STRUCTURE, Held, Holding, Quarantine, Span, Wish
from .range_loop import Lease, Range


class Made(NamedTuple):
    """What the events of a range come to."""

    rows: list[bytes]
    """The rows of a block."""
    new: int
    """How many more rows, or keys, the table has with them."""


def event_name(fact: Fact) -> str:
    """The type of an event, by its wire name."""
    return wire_name(type(fact.event))


class QuarantiningTable(LeasedTable):
    """A table of which events can be kept back. docs/adr/0011 has the argument for the order of its steps."""

    name: str
    quarantine_keys_max: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._quarantine = Quarantine(
            self._store, self.table.projection, self.table.generation, self._name, self.held_as
        )
        self._logger = structlog.get_logger("magnetar.projector").bind(context=self._name.partition("/")[0])
        self._held: dict[int, dict[str, Span]] = {}
        self._settled: dict[int, frozenset[tuple[str, int]]] = {}
        """By partition, what of the range that was begun was held once, and was released or dropped since."""

    def held_as(self, fact: Fact) -> HeldAs:
        """Under what the event is kept back: those behind it under the same key are, too."""
        return by_aggregate(fact)

    # --- what each kind has -------------------------------------------------------------------------------------------

    @abstractmethod
    def rows(self, partition: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """What the events come to, but for those that are held."""

    @abstractmethod
    def keep(self, partition: int) -> None:
        """What `rows` returned last is in the table."""

    @abstractmethod
    def of(self, partition: int) -> str:
        """The condition for the rows of a partition."""

    @abstractmethod
    def insert_rows(
        self, partition: int, lease: Lease, inserted: Range, rows: Sequence[bytes], *, part: str = "rows"
    ) -> None:
        """Insert rows as one block."""

    @abstractmethod
    def recount(self, partition: int, lease: Lease, pending: Range) -> None:
        """Write the range that is written down once more: it was counted before there was more."""

    @abstractmethod
    def facts_of(self, held: Held) -> list[Fact]:
        """The event that is held."""

    @abstractmethod
    def raised(self, fact: Fact, error: Exception) -> PartitionRefused:
        """What becomes of an error of the user's code, where nothing more can be held."""

    # --- keeping back -------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many keys more may be held."""
        return self.quarantine_keys_max - self.held_keys()

    def held_keys(self) -> int:
        """Of how many keys events are held, in the partitions that are open here. Any thread may call this."""
        return sum(len(held) for held in list(self._held.values()))

    def hold(self, holding: Holding, fact: Fact, error: Exception) -> None:
        """Keep an event back that the projection raised on. Raises PartitionRefused if too many are."""
        if not holding.begin(fact, error):
            raise self.raised(fact, error) from error
        self._logger.warning("event quarantined", **self._of_event(fact), error=type(error).__name__)

    def hold_back(
        self, partition: int, lease: Lease, schema: int, holding: Holding, payload_of: Callable[[Fact], bytes]
    ) -> None:
        """Write down what is held, before anything else of the range is in the table: it is held from then on."""
        rows, statement = self._quarantine.statement(partition, schema, holding.found, payload_of, event_name)
        with self._block(partition, rows, STRUCTURE) as block:
            guarded = statement(block.source, self._guard(partition, lease))
            self._run(partition, f"{guarded} SETTINGS async_insert = 0", block)

    # --- letting in ---------------------------------------------------------------------------------------------------

    def wishes(self) -> list[Wish]:
        """What is to be done with what is held."""
        return self._quarantine.wishes()

    def settle(self, partition: int, lease: Lease, pending: Range, wish: Wish) -> None:
        """Between two ranges: let events that were held into the table, in their order, as far as it takes them now.

        1. Inserts their rows as one block, unless they are there. 2. Writes down how many rows there are. 3. Writes
        down what is not held any more. If one is raised on again, it and those behind it stay. Raises LeaseLost.
        """
        held = self._quarantine.held(partition, wish.id)
        if not held:
            return
        if wish.step == DROP and not wish.is_dropped:
            self._tell(partition, lease, wish, DROPPED, held[0].version)
            self._failpoint("after_drop")
            held = held[1:]
        there = self.versions(partition, {wish.id: Span(held[0].version, held[-1].version)}) if held else {}
        facts = [fact for each in held if each.version > there.get(wish.id, 0) for fact in self.facts_of(each)]
        holding = Holding({}, 1, held_as=self.held_as)
        made = self.rows(partition, facts, holding)
        if made.rows:
            released = Range(facts[0].number, facts[-1].number, None, None)
            self.insert_rows(partition, lease, released, made.rows, part=f"released:{wish.nonce}")
            self._failpoint("after_release")
        self.keep(partition)
        self.recount(partition, lease, pending)
        self._failpoint("after_recount")
        self._say_settled(partition, lease, wish, held, holding)
        self._held[partition] = self._quarantine.spans(partition)

    def _say_settled(self, partition: int, lease: Lease, wish: Wish, held: Sequence[Held], holding: Holding) -> None:
        again = holding.known.get(wish.id)
        taken = [each.version for each in held if again is None or each.version < again.first]
        if taken:
            self._tell(partition, lease, wish, RELEASED, taken[-1])
        if again is not None:
            self._tell(partition, lease, wish, RAISED_AGAIN, again.first, holding.found[0][1])

    def _tell(self, partition: int, lease: Lease, wish: Wish, step: str, version: int, error: str = "") -> None:
        guard = self._guard(partition, lease)
        statement = self._quarantine.outcome(partition, wish, step, version, error, guard)
        self._run(partition, f"{statement} SETTINGS async_insert = 0")
        self._logger.info("quarantine", step=step, key=wish.id, version=version, projection=self.table.projection)

    def _of_event(self, fact: Fact) -> dict[str, str | int]:
        place = f"{self.table.aggregate}<{fact.aggregate_id}@{fact.version}>"
        return {"projection": self.table.projection, "type": event_name(fact), "of": place, "number": fact.number}

    def versions(self, partition: int, held: Mapping[str, Span]) -> dict[str, int]:
        """By key, up to which version what is held is in the table nevertheless."""
        if not held:
            return {}
        keys = ", ".join(literal(id) for id in held)
        rows = self._store.query(
            f"SELECT _id, max(_version) FROM {self.name} WHERE {self.of(partition)} AND _id IN ({keys}) GROUP BY _id"
        )
        return {id: version for id, version in rows if version >= held[id].first}
