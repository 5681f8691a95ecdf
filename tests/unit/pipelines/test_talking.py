"""Fields as JSON: what does not fit is said in words that need no standard to be looked up."""

from datetime import date, datetime, time, timedelta
from typing import Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.cli.talking import pipeline_command
from magnetar.schemas import Command, Event, SettingsError


class Lend(Command):
    day: date = date(2026, 1, 31)
    at: datetime = datetime.fromisoformat("2026-01-31T12:00:00+00:00")
    hour: time = time(12)
    span: timedelta = timedelta(days=1)


class Lent(Event):
    pass


class Book(Aggregate):
    lent: int = 0

    def execute(self, command: Lend) -> Lent:
        return Lent()

    def apply(self, event: Lent) -> Self:
        return self.replace(lent=self.lent + 1)


library = Pipeline("library", aggregates=[Book])


@pytest.mark.parametrize(
    ("field", "words", "good"),
    [
        ("day", "a date is written 2026-01-31 - at `$.day`", "2026-01-31"),
        ("at", "a time is written 2026-01-31T12:00:00Z - at `$.at`", "2026-01-31T12:00:00Z"),
        ("hour", "a time of day is written 12:00:00 - at `$.hour`", "12:00:00"),
        ("span", "a duration is written PT90S, or P1D - at `$.span`", "PT90S"),
    ],
)
def test_a_time_that_is_none_is_answered_with_one_that_is(field: str, words: str, good: str) -> None:
    with pytest.raises(SettingsError) as refused:
        pipeline_command(library, "Book", "Lend", f'{{"{field}": "tomorrow"}}')
    assert words in refused.value.what
    pipeline_command(library, "Book", "Lend", f'{{"{field}": "{good}"}}')
