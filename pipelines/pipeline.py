"""The pipeline: a value that declares one bounded context, and what is derived from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from magnetar.aggregates import Aggregate, contract_of
from magnetar.projections import Fold, Row, Sql
from magnetar.projections.contracts import contract_of as projection_contract
from magnetar.projections.declarations import has_table
from magnetar.projections.incremental import read_by
from magnetar.schemas import DeclarationError, SettingsError, Topic, TopicKind, wire_name
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.names import check_context

from .event_source import EventSource, checked_reads, home_of, sources_of
from .serving import Serving

if TYPE_CHECKING:
    from .client import Client
    from .embedded import Embedded

PARTITIONS_MAX: Final = 1024


class Pipeline:
    """One bounded context: a Pulsar namespace and a ClickHouse database of the same name.

    `partitions` is the number of partitions of every topic. It is fixed once the pipeline has run, because it decides
    where each aggregate lives. `reads` are pipelines of other contexts on the same log, whose events the Rows and Folds
    of this one may take: nothing of theirs is made or written. Raises DeclarationError for names that clash and classes
    that do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        aggregates: Sequence[type[Aggregate]],
        projections: Sequence[type[Row]] = (),
        partitions: int = 16,
        reads: Sequence[Pipeline] = (),
    ) -> None:
        check_context(name)
        self.name = name
        self.reads: dict[str, Pipeline] = checked_reads(name, reads, Pipeline)
        self.partitions = _checked(partitions)
        self.aggregates: dict[str, type[Aggregate]] = {}
        self.schemas: dict[str, AggregateSchema] = {}
        for aggregate in aggregates:
            self._add(aggregate)
        if not self.aggregates:
            raise DeclarationError(
                f"The pipeline {name!r} has no aggregate.", cure=f"Pipeline({name!r}, aggregates=[…])"
            )
        self._sources = sources_of(self)
        self.projections = tuple(projections)
        self._check_projections()
        self.running: Embedded | None = None
        """What `embedded()` runs in this process: clients go there, if they are given no other settings."""
        self._serving = Serving(self)

    def _add(self, aggregate: Any) -> None:
        if not _derives_from(Aggregate, aggregate):
            raise DeclarationError(
                f"{aggregate!r} in the aggregates of {self.name!r} is no Aggregate.", cure="List classes, not objects."
            )
        contract, aggregate_name = contract_of(aggregate), wire_name(aggregate)
        for other in self.schemas.values():
            clashes = {wire_name(event) for event in contract.events} & set(other.events)
            if aggregate_name == other.aggregate or clashes:
                what = f"an event {min(clashes)!r}" if clashes else f"the name {aggregate_name!r}"
                raise DeclarationError(
                    f"Two aggregates of {self.name!r}, {other.aggregate} and {aggregate_name}, have {what}.",
                    cure="Rename one: each event has a view of its name in the context's database.",
                )
        self.aggregates[aggregate_name] = aggregate
        self.schemas[aggregate_name] = AggregateSchema(
            self.name,
            aggregate_name,
            commands=contract.commands,
            events=contract.events,
            rejections=contract.rejections,
        )

    def _check_projections(self) -> None:
        named: dict[str, Any] = {}
        for projection in self.projections:
            if not _derives_from(Row, projection):
                raise DeclarationError(
                    f"{projection!r} in the projections of {self.name!r} is no projection.",
                    cure="List classes derived from Sql, Rows or Fold.",
                )
            name = wire_name(projection)
            if named.setdefault(name.lower(), projection) is not projection or name in self.aggregates:
                raise DeclarationError(
                    f"The pipeline {self.name!r} has two things called {name!r}.", cure="Rename the projection."
                )
            if has_table(projection):
                self.aggregates_of(projection)

    def aggregates_of(self, projection: type[Row]) -> tuple[str, ...]:
        """Whose events a Rows, a Fold or an incremental Sql takes: one of another context as `flights/Flight`.

        Raises DeclarationError for an event of no aggregate here or of what is read, and for a fold over two of them.
        """
        if issubclass(projection, Sql):
            return (self._aggregate_of(projection),)
        found: dict[str, None] = {}
        for event in projection_contract(projection).events:
            found[home_of(projection, event, self._sources, self.name)] = None
        if issubclass(projection, Fold) and len(found) > 1:
            raise DeclarationError(
                f"{projection.__qualname__} takes events of {' and '.join(found)}, and a fold is over one aggregate: "
                "those of two have no order.",
                cure="Make two folds and join them in an Sql, or let one aggregate have all of the events.",
            )
        return tuple(found)

    def _aggregate_of(self, projection: type[Sql]) -> str:
        database, event = read_by(projection.select)
        for name, schema in self.schemas.items():
            if event in schema.events and database in {None, self.name}:
                return name
        raise DeclarationError(
            f"{projection.__name__} cannot be kept incrementally: {event or 'what it reads'} is no event of "
            f"{self.name!r}.",
            cure="Let it read one event of the pipeline; or leave `incremental` away.",
        )

    def topic(self, aggregate: str, kind: TopicKind) -> Topic:
        """The name of an aggregate's topic. Raises SettingsError for an aggregate that the pipeline has not."""
        self.schema_of(aggregate)
        return Topic(self.name, aggregate, kind)

    def events_of(self, aggregate: str) -> EventSource:
        """Where events come from: of an aggregate of the pipeline, or, as `flights/Flight`, of one that it reads."""
        return self._sources[aggregate]

    def schema_of(self, aggregate: str) -> AggregateSchema:
        """What stands on an aggregate's topics. Raises SettingsError for an aggregate that the pipeline has not."""
        if aggregate not in self.schemas:
            known = ", ".join(self.schemas)
            raise SettingsError(f"The pipeline {self.name!r} has no aggregate {aggregate!r}.", cure=f"It has: {known}.")
        return self.schemas[aggregate]

    @property
    def client(self) -> Client:
        """The asyncio client of the running application: what its handlers ask with.

        Raises SettingsError outside of `lifespan`.
        """
        return self._serving.client

    @asynccontextmanager
    async def lifespan(self, _application: object = None, /) -> AsyncGenerator[None]:
        """Give a Starlette or FastAPI application a client: `FastAPI(lifespan=accounts.lifespan)`.

        1. Opens `client`, with the settings from the environment. 2. Closes it when the application ends: asks under
        way end with OutcomeUnknown. Nothing else is started: workers and projectors are processes of their own.
        """
        import asyncio  # a module that declares a pipeline does not wait for it

        await asyncio.to_thread(self._serving.start)
        try:
            yield
        finally:
            client = self._serving.end()
            if client is not None:
                await client.close()

    @contextmanager
    def embedded(self) -> Generator[Embedded]:
        """Run the whole pipeline in this process, in a temporary folder that is removed at the end: for tests.

        1. Makes the log and starts a worker on a thread. 2. Points `Client`, `SyncClient` and `lifespan` of this
        pipeline at it, where they are given no settings. 3. ClickHouse is opened at the first query, which takes a
        second or two. Raises SettingsError if the pipeline runs embedded already.
        """
        from .embedded import Embedded

        with Embedded(self) as running:
            yield running

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, aggregates={list(self.aggregates)}, partitions={self.partitions})"


def _derives_from(kind: type[Any], value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


def _checked(partitions: int) -> int:
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise DeclarationError(
            f"A pipeline cannot have {partitions} partitions.", cure=f"Use 1 to {PARTITIONS_MAX}; 16 is the default."
        )
    return partitions
