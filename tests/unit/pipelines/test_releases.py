"""A backlog over two releases: commands and commits of the older one are read with its schemas."""

import random
import threading
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Command, Event, Immutable, Precision, Undecodable, uuid7


class Price1(Immutable, wire_name="Price"):
    amount: Annotated[Decimal, Precision(18, 2)]


class Put1(Command, wire_name="Put"):
    price: Price1


class Added1(Event, wire_name="Added"):
    price: Price1


class Cart1(Aggregate, wire_name="Cart"):
    total: Decimal = Decimal(0)

    def execute(self, command: Put1) -> Added1:
        return Added1(command.price)

    def apply(self, event: Added1) -> Self:
        return self.replace(total=self.total + event.price.amount)


class Currency(Enum):
    EUR = "EUR"
    USD = "USD"


class Price2(Immutable, wire_name="Price"):
    currency: Currency = Currency.EUR
    amount: Annotated[Decimal, Precision(18, 2)] = Decimal(0)


class Empty(Command):
    """Sorted before `Put`, whose number within the commands it moves."""


class Put2(Command, wire_name="Put"):
    count: int = 1
    price: Price2 = Price2()


class Added2(Event, wire_name="Added"):
    price: Price2 = Price2()
    count: int = 1


class Abandoned(Event):
    pass


class Cart2(Aggregate, wire_name="Cart"):
    totals: tuple[tuple[Currency, Decimal], ...] = ()

    def execute(self, command: Empty | Put2) -> Abandoned | Added2:
        return Added2(command.price, command.count) if isinstance(command, Put2) else Abandoned()

    def apply(self, event: Abandoned | Added2) -> Self:
        if isinstance(event, Abandoned):
            return self.replace(totals=())
        return self.replace(totals=(*self.totals, (event.price.currency, event.price.amount * event.count)))


RELEASES: dict[type[Aggregate], Pipeline] = {
    aggregate: Pipeline("shop", aggregates=[aggregate], partitions=1) for aggregate in (Cart1, Cart2)
}


class Deployment:
    """One release over a data folder: a client and a worker."""

    def __init__(self, folder: Path, aggregate: type[Aggregate]) -> None:
        pipeline = RELEASES[aggregate]
        self.log = SqliteLog(folder, SystemClock())
        provision(pipeline, self.log)
        self.client = SyncClient(pipeline, settings=Settings(data=folder))
        self.worker = Worker(
            self.log,
            aggregate,
            pipeline.schemas["Cart"],
            partitions=1,
            name="w",
            clock=SystemClock(),
            random=random.SystemRandom(),
        )

    def work(self) -> None:
        while self.worker.step(timeout_seconds=0.3):
            pass

    def close(self) -> None:
        self.worker.close()
        self.client.close()
        self.log.close()


def test_commands_and_events_of_an_older_release_are_read_with_its_schemas(tmp_path: Path) -> None:
    now = SystemClock().now_ms()
    old = Deployment(tmp_path / "data", Cart1)
    old.client.send(Cart1, "a", Put1(Price1(Decimal("1.50"))), command_id=uuid7(now, 1))
    old.work()
    old.client.send(Cart1, "a", Put1(Price1(Decimal(2))), command_id=uuid7(now, 2))
    old.close()
    new = Deployment(tmp_path / "data", Cart2)
    dollars = Price2(Currency.USD, Decimal(3))
    new.client.send(Cart2, "a", Put2(2, dollars), command_id=uuid7(now, 3))
    new.work()
    euro, dollar = Currency.EUR, Currency.USD
    totals = ((euro, Decimal("1.50")), (euro, Decimal(2)), (dollar, Decimal(6)))
    (owned,) = new.worker._owned.values()
    assert owned.processor.state_of("a") == (3, Cart2(totals))
    new.close()


def test_an_outcome_that_the_clients_code_lacks_is_said_to_be_decided(tmp_path: Path) -> None:
    old = Deployment(tmp_path / "data", Cart1)
    old.worker.close()
    new = Deployment(tmp_path / "data", Cart2)
    id, stop = uuid7(SystemClock().now_ms(), 1), threading.Event()
    thread = threading.Thread(target=decide_until, args=(stop.is_set, [new.worker], SystemClock()))
    thread.start()
    try:
        with pytest.raises(Undecodable, match=f"Command {id} was decided, .* Added.price.currency") as unreadable:
            old.client.ask(Cart1, "a", Put1(Price1(Decimal(1))), command_id=id)
    finally:
        stop.set()
        thread.join()
    assert unreadable.value.fields == {"command_id": id}
    old.close()
    new.close()
