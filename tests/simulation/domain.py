"""The aggregate of the simulation: each outcome tells its history, so that a second history is seen."""

from typing import Self

from magnetar.aggregates import Aggregate, contract_of
from magnetar.schemas import Command, Event, Rejection
from magnetar.schemas.aggregate_schema import AggregateSchema


class Add(Command):
    """Add to the total."""

    amount: int


class Added(Event):
    """The total was raised, and is now so much."""

    amount: int
    total: int


class Over(Rejection):
    """The total would exceed 20."""

    total: int


class Tally(Aggregate):
    """Adds up, to 20 at most; does nothing for 0; raises for 13."""

    total: int = 0

    def execute(self, command: Add) -> Added | Over | None:
        """Decide."""
        if command.amount == 13:
            raise RuntimeError("unlucky")
        if command.amount == 0:
            return None
        if self.total + command.amount > 20:
            return Over(self.total)
        return Added(command.amount, self.total + command.amount)

    def apply(self, event: Added) -> Self:
        """Evolve."""
        return self.replace(total=event.total)


CONTRACT = contract_of(Tally)
SCHEMA = AggregateSchema(
    "sim", "Tally", commands=CONTRACT.commands, events=CONTRACT.events, rejections=CONTRACT.rejections
)
