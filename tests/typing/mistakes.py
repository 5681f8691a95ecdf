"""Mistakes that mypy and pyright have to find, each on a line marked for it, and nothing else: test_mistakes.py looks.

It is checked and never run.
"""

from datetime import UTC, datetime
from typing import assert_never

from examples.flights.flight import Cancel, Cancelled, Departed, Divert, Flight, Landed, Scheduled
from examples.flights.pipeline import Board, DelaysByRoute, LateDeparture
from magnetar import Aggregate, Client, Command, Event, Meta, Pipeline, Rejection, State, SyncClient
from magnetar.testing import given, project


class Deposit(Command):
    cents: int


class Close(Command):
    pass


class Deposited(Event):
    cents: int


class Closed(Event):
    pass


class Refused(Rejection):
    least: int


class NotEmpty(Rejection):
    pass


class Open(State):
    cents: int = 0


class Account(Aggregate):
    stage: Open = Open()

    def execute(self, command: Deposit | Close, meta: Meta) -> Deposited | Closed | Refused | NotEmpty:
        match command:
            case Deposit(cents) if cents < 100:
                return Refused(100)
            case Deposit(cents):
                return Deposited(cents)
            case Close() if self.stage.cents:
                return NotEmpty()
            case Close():
                return Cancelled("UA", "JFK", "SFO", meta.at)  # expect: mypy, pyright

    def apply(self, event: Deposited | Closed) -> "Account":
        match event:
            case Deposited(cents):
                return self.replace(stage=Open(self.stage.cents + cents))
            case Closed():
                return event  # expect: mypy, pyright


def wrong_commands(client: SyncClient) -> None:
    client.ask(Flight, "1", Cancel())
    client.ask(Flight, "1", Close())  # expect: mypy, pyright
    client.ask(Flight, "1", Closed())  # expect: mypy, pyright
    client.send(Flight, "1", Cancel())
    client.send(Flight, "1", Close())  # expect: mypy, pyright
    given(Flight).when(Divert())
    given(Flight).when(Close())  # expect: mypy, pyright
    given(Account, Deposited(100)).when(Cancel())  # expect: mypy, pyright


async def wrong_commands_in_asyncio(client: Client) -> None:
    await client.ask(Account, "1", Close())
    await client.ask(Account, "1", Cancel())  # expect: mypy, pyright
    await client.send(Account, "1", Cancel())  # expect: mypy, pyright


def texts_that_are_put_together(client: SyncClient, sku: str) -> None:
    client.query(DelaysByRoute, "origin = {origin:String}", origin=sku)
    client.query(DelaysByRoute, f"origin = '{sku}'")  # expect: pyright
    client.query(Flight)  # expect: mypy, pyright


def wrong_histories(scheduled: Scheduled, departed: Departed, landed: Landed, history: tuple[Scheduled, ...]) -> None:
    given(Flight, scheduled, departed, landed)
    given(Flight, scheduled, departed, scheduled, departed, landed, scheduled, departed, landed)
    given(Flight, *history)
    given(Account, scheduled)  # expect: mypy, pyright
    given(Account, *history)  # expect: mypy, pyright
    given(Account, Deposited(1), scheduled)  # expect: mypy, pyright
    given(Flight, scheduled, departed, Closed())  # expect: mypy, pyright
    given(Flight, Cancel())  # expect: mypy, pyright
    given(Flight, Cancelled)  # expect: mypy, pyright


def wrong_outcomes(landed: Landed) -> None:
    given(Account).when(Deposit(1)).then(Refused(100))
    given(Account).when(Deposit(100)).then(landed)  # expect: mypy, pyright
    given(Account).when(Deposit(100)).then(None)  # expect: mypy, pyright
    given(Account).when(Deposit(100)).then((Deposited(100), Closed()))  # expect: mypy, pyright
    given(Account).when(Deposit(100)).then(Deposit(100))  # expect: mypy, pyright


def every_rejection_is_met(client: SyncClient) -> int:
    match client.ask(Account, "1", Close()).outcome:
        case Deposited() | Closed():
            return 200
        case Refused() | NotEmpty():
            return 422
        case _ as left:
            assert_never(left)


def a_rejection_is_forgotten(client: SyncClient) -> int:
    match client.ask(Account, "1", Close()).outcome:
        case Deposited() | Closed():
            return 200
        case Refused(least):
            return least
        case _ as left:
            assert_never(left)  # expect: mypy, pyright


async def a_rejection_is_forgotten_in_asyncio(client: Client) -> int:
    receipt = await client.ask(Account, "1", Close())
    match receipt.outcome:
        case Deposited() | Closed():
            return 200
        case NotEmpty():
            return 422
        case _ as left:
            assert_never(left)  # expect: mypy, pyright


def wrong_fields() -> None:
    Deposit(1)
    Deposit("1")  # expect: mypy, pyright
    Deposit()  # expect: mypy, pyright
    Deposit(1, 2)  # expect: mypy, pyright
    Deposit(dollars=1)  # expect: mypy, pyright
    Account(stage=Closed())  # expect: mypy, pyright
    Refused(least=1.5)  # expect: mypy, pyright


def frozen_fields(command: Deposit, event: Deposited, account: Account) -> None:
    command.cents = 2  # expect: mypy, pyright
    event.cents = 2  # expect: mypy, pyright
    account.stage = Open(1)  # expect: mypy, pyright
    account.stage.cents = 1  # expect: mypy, pyright


NOT_CLASSES = Pipeline("accounts", aggregates=[Account()])  # expect: mypy, pyright
NO_AGGREGATES = Pipeline("accounts", aggregates=[Deposited])  # expect: mypy, pyright


def wrong_rows() -> None:
    LateDeparture("UA1", "JFK", "SFO", 61)
    LateDeparture("UA1", "JFK", "SFO", "late")  # expect: mypy, pyright
    Board().status = "Departed"  # expect: mypy, pyright
    Board(stage="Departed")  # expect: mypy, pyright


def wrong_projecting() -> int:
    row = project(Board, events=[Cancelled("UA", "JFK", "SFO", datetime(2013, 1, 1, tzinfo=UTC))])
    rows = project(LateDeparture, events=[])
    project(Board)  # expect: mypy, pyright
    project(DelaysByRoute, events=[])  # expect: mypy, pyright
    assert row is not None
    place = row.place  # expect: mypy, pyright
    return len(place) + len(rows)
