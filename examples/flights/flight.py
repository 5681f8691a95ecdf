"""The domain: one flight on one day, from its schedule to its end. Pure, and testable without Magnetar running."""

from datetime import datetime
from typing import Self

from magnetar import Aggregate, Command, Event, Rejection, State


class Schedule(Command):
    """Put a flight on the schedule."""

    carrier: str
    origin: str
    dest: str
    departs_at: datetime


class Depart(Command):
    """Say that a flight has left the gate."""

    at: datetime


class Land(Command):
    """Say that a flight has arrived. For some, the source does not tell how late they were."""

    local_time: str
    delay_minutes: int | None


class Divert(Command):
    """Say that a flight came down somewhere else."""


class Cancel(Command):
    """Take a flight off the schedule."""


class Scheduled(Event):
    """A flight is planned."""

    carrier: str
    origin: str
    dest: str
    departs_at: datetime


class Departed(Event):
    """A flight has left, so many minutes late (early, if negative)."""

    carrier: str
    origin: str
    dest: str
    at: datetime
    delay_minutes: int


class Landed(Event):
    """A flight has arrived where it was bound for."""

    carrier: str
    origin: str
    dest: str
    local_time: str
    delay_minutes: int | None


class Diverted(Event):
    """A flight has come down somewhere else."""

    carrier: str
    origin: str
    dest: str


class Cancelled(Event):
    """A flight will not leave."""

    carrier: str
    origin: str
    dest: str
    departs_at: datetime


class NotScheduled(Rejection):
    """Nobody has scheduled this flight."""


class AlreadyScheduled(Rejection):
    """The flight is on the schedule already."""


class NotDeparted(Rejection):
    """The flight is still on the ground."""


class AlreadyDeparted(Rejection):
    """The flight has left."""


class AlreadyOver(Rejection):
    """The flight has come to its end."""


class Unplanned(State):
    """Nothing is known of the flight."""


class Waiting(State):
    """The flight is scheduled."""

    carrier: str
    origin: str
    dest: str
    departs_at: datetime


class Airborne(State):
    """The flight has left."""

    carrier: str
    origin: str
    dest: str


class Over(State):
    """The flight has landed, or was diverted or cancelled."""

    end: str


class Flight(Aggregate):
    """One flight on one day. Its id: carrier, number, `@`, the hour it was scheduled for."""

    stage: Unplanned | Waiting | Airborne | Over = Unplanned()

    def execute(
        self, command: Schedule | Depart | Land | Divert | Cancel
    ) -> (
        Scheduled
        | Departed
        | Landed
        | Diverted
        | Cancelled
        | NotScheduled
        | AlreadyScheduled
        | NotDeparted
        | AlreadyDeparted
        | AlreadyOver
    ):
        match self.stage, command:
            case Unplanned(), Schedule(carrier, origin, dest, departs_at):
                return Scheduled(carrier, origin, dest, departs_at)
            case Unplanned(), _:
                return NotScheduled()
            case _, Schedule():
                return AlreadyScheduled()
            case Waiting(carrier, origin, dest, departs_at), Depart(at):
                return Departed(carrier, origin, dest, at, round((at - departs_at).total_seconds() / 60))
            case Waiting(carrier, origin, dest, departs_at), Cancel():
                return Cancelled(carrier, origin, dest, departs_at)
            case Waiting(), Land() | Divert():
                return NotDeparted()
            case Airborne(carrier, origin, dest), Land(local_time, delay_minutes):
                return Landed(carrier, origin, dest, local_time, delay_minutes)
            case Airborne(carrier, origin, dest), Divert():
                return Diverted(carrier, origin, dest)
            case Airborne(), Depart() | Cancel():
                return AlreadyDeparted()
            case _:
                return AlreadyOver()

    def apply(self, event: Scheduled | Departed | Landed | Diverted | Cancelled) -> Self:
        match event:
            case Scheduled(carrier, origin, dest, departs_at):
                return self.replace(stage=Waiting(carrier, origin, dest, departs_at))
            case Departed(carrier, origin, dest):
                return self.replace(stage=Airborne(carrier, origin, dest))
            case Landed() | Diverted() | Cancelled():
                return self.replace(stage=Over(type(event).__name__))
