"""The pipeline that is watched, in a later version: it has an event that the other does not know."""

from typing import Self

from magnetar import Aggregate, Command, Event, Pipeline
from tests.helm.watched import Broke, Paid, Pay


class Tip(Command):
    amount: int


class Tipped(Event):
    amount: int


class Purse(Aggregate):
    total: int = 0

    def execute(self, command: Pay | Tip) -> Paid | Tipped | Broke | None:
        match command:
            case Tip(amount):
                return Tipped(amount)
            case Pay(amount):
                return Paid(amount)

    def apply(self, event: Paid | Tipped) -> Self:
        return self.replace(total=self.total + event.amount)


newer = Pipeline("watched", aggregates=[Purse], partitions=2)
