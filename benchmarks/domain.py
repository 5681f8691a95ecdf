"""The aggregate that the benchmarks decide for: small, with 100-byte payloads."""

from typing import Self

from magnetar import Aggregate, Command, Event, Rejection


class Put(Command):
    """Put something into a box."""

    amount: int
    note: str


class BoxPut(Event):
    """Something was put into a box."""

    amount: int
    total: int
    note: str


class Full(Rejection):
    """The box takes no more."""

    total: int


class Box(Aggregate):
    """A box with a limit."""

    total: int = 0

    def execute(self, command: Put) -> BoxPut | Full:
        """Refuse what does not fit."""
        if self.total + command.amount > 1_000_000:
            return Full(self.total)
        return BoxPut(command.amount, self.total + command.amount, command.note)

    def apply(self, event: BoxPut) -> Self:
        """Remember the total."""
        return self.replace(total=event.total)
