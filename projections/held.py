"""What is held in quarantine just now, as a query: what of a key was not released or dropped since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from magnetar.schemas.commit import Fact

VERSION_BITS: Final = 31
"""Of an order below the bits of the commit's number: two billion versions of an aggregate, and as many commits of a
partition."""


class HeldAs(NamedTuple):
    """Under what an event is kept back: its key, and its order among the events of that key on a partition."""

    key: str
    order: int
    """The version, where a key is an aggregate; otherwise `order_of` of the number of the commit and the version."""


def by_aggregate(fact: Fact) -> HeldAs:
    """What most tables go by."""
    return HeldAs(fact.aggregate_id, fact.version)


def order_of(number: int, version: int) -> int:
    """The order of an event among those of several aggregates: a commit has the events of one."""
    return number << VERSION_BITS | version


VERSION: Final = f"bitAnd({{}}, {(1 << VERSION_BITS) - 1})"
"""The version in what stands in the column `version`, as ClickHouse has it."""


HELD, RELEASED, DROPPED, RAISED_AGAIN = "held", "released", "dropped", "again"


def open_query(where: str) -> str:
    """The events that are held: with those that were released or dropped taken away. A row may stand there twice."""
    by = "`projection`, generation, aggregate, partition, id"
    done = (
        f"SELECT {by}, max(version) AS done FROM magnetar.quarantine WHERE step IN ('{RELEASED}', '{DROPPED}') "
        f"AND {where} GROUP BY {by}"
    )
    return (
        f"SELECT held.* FROM (SELECT * FROM magnetar.quarantine WHERE step = '{HELD}' AND {where} "
        f"ORDER BY at LIMIT 1 BY {by}, version) AS held LEFT JOIN ({done}) AS done USING ({by}) "
        "WHERE held.version > done.done"
    )
