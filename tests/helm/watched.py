"""A pipeline that is watched: some of its commands and events are trouble."""

from collections.abc import Iterator
from typing import Self

from magnetar import Aggregate, Command, Event, Meta, Pipeline, Rejection, Rows

POISON = 666
"""The amount that the projection cannot take."""


class Pay(Command):
    amount: int


class Paid(Event):
    amount: int


class Broke(Rejection):
    pass


class Purse(Aggregate):
    total: int = 0

    def execute(self, command: Pay) -> Paid | Broke | None:
        match command.amount:
            case 0:
                return None
            case 13:
                raise RuntimeError("unlucky")
            case amount if amount > 1000:
                return Broke()
            case amount:
                return Paid(amount)

    def apply(self, event: Paid) -> Self:
        return self.replace(total=self.total + event.amount)


class Payment(Rows):
    amount: int

    @classmethod
    def project(cls, event: Paid, meta: Meta) -> Iterator[Self]:
        if event.amount == POISON:
            raise ValueError("poison")
        yield cls(event.amount)


watched = Pipeline("watched", aggregates=[Purse], projections=[Payment], partitions=2)
