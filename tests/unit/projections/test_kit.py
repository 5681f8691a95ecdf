"""The test kit for projections: what comes out, and what it refuses."""

from collections.abc import Iterator
from random import Random
from typing import Self

import pytest
from magnetar.projections import Fold, Rows
from magnetar.schemas import Event, Meta

from magnetar.testing import project
from tests.unit.projections.projected import Balance, Emptied, Ignored, Large, Put, Taken

RANDOM = Random(1)


def test_a_fold_comes_to_its_row() -> None:
    assert project(Balance, events=[Put(5), Taken(2)]) == Balance(3, (5, -2))


def test_a_fold_that_deletes_comes_to_nothing() -> None:
    assert project(Balance, events=[Put(5), Emptied()]) is None
    assert project(Balance, events=[]) is None


def test_rows_come_in_the_order_of_the_events_with_what_meta_says() -> None:
    assert project(Large, events=[Put(200), Taken(100)], actor="me") == (
        Large(200, "me"),
        Large(200, "me"),
        Large(100, "me"),
    )


class Numbered(Rows):
    """Says what it is told."""

    id: str
    version: int

    @classmethod
    def project(cls, event: Put, meta: Meta) -> Iterator[Self]:
        yield cls(meta.id, meta.version)


def test_meta_has_the_version_of_each_event() -> None:
    assert project(Numbered, id="x", events=[Put(1), Put(1)]) == (Numbered("x", 1), Numbered("x", 2))


class Rolled(Fold):
    number: float = 0.0

    def apply(self, event: Put) -> Self:
        return self.replace(number=RANDOM.random())


class Whole(Fold):
    number: float = 0.0

    def apply(self, event: Put) -> Self:
        return self.replace(number="many")


class Held(Rows):
    amount: int

    @classmethod
    def project(cls, event: Put) -> tuple[Self, ...]:
        return (Large(1, None),)  # type: ignore[return-value]  # what users without a type checker write


@pytest.mark.parametrize(
    ("projection", "event", "what"),
    [
        (Rolled, Put(1), "It has to be pure"),
        (Whole, Put(1), "cannot be stored: Whole"),
        (Held, Put(1), "and not a Held"),
        (Balance, Ignored("x"), "does not take Ignored"),
        (Balance, Put("x"), "could not stand in the log"),  # type: ignore[arg-type]  # the same
    ],
)
def test_what_could_not_be_in_a_table_is_an_assertion(projection: type[Fold], event: Event, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        project(projection, events=[event])
