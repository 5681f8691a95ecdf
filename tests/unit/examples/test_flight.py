"""The flights' domain, tested as its authors would: without anything running."""

from datetime import UTC, datetime, timedelta

import pytest

from examples.flights.data import commands, expected, rows
from examples.flights.flight import (
    AlreadyDeparted,
    AlreadyOver,
    AlreadyScheduled,
    Cancel,
    Cancelled,
    Depart,
    Departed,
    Divert,
    Diverted,
    Flight,
    Land,
    Landed,
    NotDeparted,
    NotScheduled,
    Schedule,
    Scheduled,
)
from examples.flights.pipeline import HourlyDepartures
from magnetar.testing import given

TEN = datetime(2013, 1, 1, 10, tzinfo=UTC)
SCHEDULED = Scheduled("UA", "JFK", "SFO", TEN)
DEPARTED = Departed("UA", "JFK", "SFO", TEN + timedelta(minutes=7), 7)
LANDED = Landed("UA", "JFK", "SFO", "13:30", -4)


def test_a_flight_is_scheduled_once() -> None:
    given(Flight).when(Schedule("UA", "JFK", "SFO", TEN)).then(SCHEDULED)
    given(Flight, SCHEDULED).when(Schedule("UA", "JFK", "SFO", TEN)).then(AlreadyScheduled())


def test_a_departure_says_how_late_it_is() -> None:
    given(Flight, SCHEDULED).when(Depart(TEN + timedelta(minutes=7))).then(DEPARTED)
    given(Flight, SCHEDULED).when(Depart(TEN - timedelta(minutes=3))).then(
        Departed("UA", "JFK", "SFO", TEN - timedelta(minutes=3), -3)
    )


def test_a_flight_ends_once() -> None:
    given(Flight, SCHEDULED, DEPARTED).when(Land("13:30", -4)).then(LANDED)
    given(Flight, SCHEDULED, DEPARTED).when(Divert()).then(Diverted("UA", "JFK", "SFO"))
    given(Flight, SCHEDULED).when(Cancel()).then(Cancelled("UA", "JFK", "SFO", TEN))
    given(Flight, SCHEDULED, DEPARTED, LANDED).when(Divert()).then(AlreadyOver())


@pytest.mark.parametrize("command", [Land("10:00", None), Divert()])
def test_what_is_on_the_ground_does_not_come_down(command: Land | Divert) -> None:
    given(Flight, SCHEDULED).when(command).then(NotDeparted())
    given(Flight).when(command).then(NotScheduled())


@pytest.mark.parametrize("command", [Depart(TEN), Cancel()])
def test_what_has_left_neither_leaves_again_nor_is_cancelled(command: Depart | Cancel) -> None:
    given(Flight, SCHEDULED, DEPARTED).when(command).then(AlreadyDeparted())


@pytest.mark.parametrize("command", [Depart(TEN), Cancel()])
def test_what_nobody_has_scheduled_neither_leaves_nor_is_cancelled(command: Depart | Cancel) -> None:
    given(Flight).when(command).then(NotScheduled())


def test_what_has_been_scheduled_is_not_scheduled_again() -> None:
    given(Flight, SCHEDULED, DEPARTED).when(Schedule("UA", "JFK", "SFO", TEN)).then(AlreadyScheduled())
    given(Flight, SCHEDULED, DEPARTED, LANDED).when(Schedule("UA", "JFK", "SFO", TEN)).then(AlreadyScheduled())


@pytest.mark.parametrize("command", [Depart(TEN), Land("10:00", None), Divert(), Cancel()])
def test_what_is_over_stays_over(command: Depart | Land | Divert | Cancel) -> None:
    given(Flight, SCHEDULED, DEPARTED, LANDED).when(command).then(AlreadyOver())


def test_january_has_the_flights_that_its_source_says() -> None:
    want = expected(rows(all_months=False))
    sent = list(commands(rows(all_months=False)))
    assert want.flights == 27_004
    assert want.commands == len(sent) == len({each.key for each in sent})
    assert sum(want.rejections.values()) == 271


def test_an_hour_in_which_one_was_on_time_and_the_others_early_had_no_delay() -> None:
    hour = HourlyDepartures()
    for delay in (-3, 0, -2):
        hour = hour.apply(Departed("UA", "JFK", "SFO", TEN + timedelta(minutes=delay), delay))
    assert (hour.departures, hour.delay_minutes, hour.longest_delay) == (3, -5, 0)
