"""A context that reads another one's events, with an aggregate of the same name as one of that."""

from collections.abc import Iterator
from typing import ClassVar, Self

from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.projections import Fold, Rows, Sql
from magnetar.schemas import Command, Event, Meta

from tests.unit.pipelines.purses import Door, Paid, Purse, Twice

WRONG: set[int] = set()
"""The totals that a projection raises on; a test mends it by taking them out."""


class Bill(Command):
    amount: int


class Billed(Event):
    amount: int


class Account(Aggregate, wire_name="Purse"):
    """It is called as the other context's purse is."""

    def execute(self, command: Bill) -> Billed:
        return Billed(command.amount)

    def apply(self, event: Billed) -> Self:
        return self


class Statement(Rows):
    """What was billed here, and paid there."""

    what: str
    total: int

    @classmethod
    def project(cls, event: Billed | Paid, meta: Meta) -> Iterator[Self]:
        match event:
            case Billed(amount):
                yield cls("billed", amount)
            case Paid(total=total):
                if total in WRONG:
                    raise ValueError(f"{total} is wrong")
                yield cls("paid", total)


class Standing(Fold):
    """How much is in each purse of the other context."""

    total: int = 0

    def apply(self, event: Paid | Twice) -> Self:
        return self.replace(total=event.total) if isinstance(event, Paid) else self


class Times(Fold):
    """How often it came to each total there, over all purses."""

    by = ("total",)
    merges: ClassVar = {"times": sum}

    total: int = 0
    times: int = 0

    def apply(self, event: Paid) -> Self:
        return self.replace(times=self.times + 1)


class Payments(Sql):
    """A query over the other context's views."""

    select = "SELECT count() AS payments FROM purses.Paid"
    payments: int


purses = Pipeline("purses", aggregates=[Purse, Door], partitions=2)
billing = Pipeline(
    "billing",
    aggregates=[Account],
    projections=[Statement, Standing, Times, Payments],
    partitions=3,
    reads=[purses],
)
