"""The aggregate of the simulation: every outcome tells its history, so that a second history is seen."""

from __future__ import annotations

from typing import Final, Self

from magnetar.aggregates import Aggregate, contract_of
from magnetar.schemas import Command, Event, Meta, Rejection
from magnetar.schemas.aggregate_schema import AggregateSchema

UNLUCKY = 13
FEE_FROM = 5
EMPTIED_FROM = 1


class Deposit(Command):
    """Put money in. 0 is nothing to do, and 13 makes the brain raise."""

    amount: int


class Withdraw(Command):
    """Take money out, as far as there is some; from 5 on it costs a fee of 1."""

    amount: int


class Deposited(Event):
    """The balance after the event, and which of the account's events it is."""

    amount: int
    balance: int
    entry: int


class Withdrawn(Event):
    """As Deposited."""

    amount: int
    balance: int
    entry: int


class FeeCharged(Event):
    """As Deposited."""

    balance: int
    entry: int


class Overdrawn(Rejection):
    """More was asked for than there is."""

    asked: int
    balance: int


class Account(Aggregate):
    """A balance that never falls below 0."""

    balance: int = 0

    def execute(
        self, command: Deposit | Withdraw, meta: Meta
    ) -> Deposited | Withdrawn | tuple[Withdrawn, FeeCharged] | Overdrawn | None:
        """Decide."""
        entry, amount = meta.version + 1, command.amount
        match command:
            case Deposit(amount=0):
                return None
            case Deposit(amount=13):
                raise RuntimeError("unlucky")
            case Deposit():
                return Deposited(amount, self.balance + amount, entry)
            case Withdraw() if amount > self.balance:
                return Overdrawn(amount, self.balance)
            case Withdraw() if FEE_FROM <= amount < self.balance:
                rest = self.balance - amount
                return Withdrawn(amount, rest, entry), FeeCharged(rest - 1, entry + 1)
        return Withdrawn(amount, self.balance - amount, entry)

    def apply(self, event: Deposited | Withdrawn | FeeCharged) -> Self:
        """Evolve."""
        return self.replace(balance=event.balance)


class Emptied(Event):
    """Only newer code knows it: the last of the money went, in one withdrawal."""

    amount: int
    entry: int


class NewerAccount(Account, wire_name="Account"):
    """The next release of Account, which runs side by side with it."""

    def execute(  # type: ignore[override]  # a newer release has outcomes that the older does not know
        self, command: Deposit | Withdraw, meta: Meta
    ) -> Deposited | Withdrawn | Emptied | tuple[Withdrawn, FeeCharged] | Overdrawn | None:
        """Decide."""
        if isinstance(command, Withdraw) and command.amount == self.balance and self.balance > EMPTIED_FROM:
            return Emptied(command.amount, meta.version + 1)
        return super().execute(command, meta)

    def apply(self, event: Deposited | Withdrawn | FeeCharged | Emptied) -> Self:
        """Evolve."""
        return self.replace(balance=0) if isinstance(event, Emptied) else super().apply(event)


def schema_of(cls: type[Account]) -> AggregateSchema:
    """What stands on the topics of a release."""
    contract = contract_of(cls)
    return AggregateSchema(
        "sim", "Account", commands=contract.commands, events=contract.events, rejections=contract.rejections
    )


RELEASES: Final = (Account, NewerAccount)
"""In the order of the numbers that the log gives to their schemas, from 1."""

SCHEMAS: Final = tuple(schema_of(cls) for cls in RELEASES)
SCHEMA: Final = SCHEMAS[0]
"""Both releases have the same commands."""
