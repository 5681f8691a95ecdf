"""The purses' pipeline with projections that are read as typed rows."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Self
from uuid import UUID

from magnetar.pipelines import Pipeline
from magnetar.projections import Sql
from magnetar.schemas import Precision, State

from tests.unit.pipelines.purses import PARTITIONS, Door, Purse


class Richest(Sql):
    select = "SELECT _id AS id, max(total) AS total FROM Paid GROUP BY id"
    id: str
    total: int


class Totals(Sql):
    """The same, kept incrementally."""

    incremental = True
    select = "SELECT _id AS id, max(total) AS total, count() AS payments FROM purses.Paid GROUP BY id"
    id: str
    total: int
    payments: int


class Color(Enum):
    RED = "red"


class Point(State):
    x: int
    label: str


class Kinds(Sql):
    """One column of each kind that a field can have."""

    select = r"""
    SELECT true AS flag, toInt64(-1) AS whole, 1.5 AS real, 'ü' AS text, unhex('00FF') AS raw,
        toDate32('1960-01-02') AS day, toDateTime64('2026-01-02 03:04:05.678901', 6, 'UTC') AS moment,
        toDecimal64('1.10', 2) AS price, toUUID('01890a5d-ac96-774b-bcce-b302099a8057') AS id,
        toInt64(3723000004) AS clock, toInt64(-5) AS span, [1, 2] AS many, ['a'] AS several, map('k', 1.5) AS by_name,
        'red' AS color, CAST(tuple(1, 'here'), 'Tuple(x Int64, label String)') AS point, 'yes' AS answer,
        CAST(NULL, 'Nullable(Int64)') AS nothing
    FROM Paid LIMIT 1
    """
    flag: bool
    whole: int
    real: float
    text: str
    raw: bytes
    day: date
    moment: datetime
    price: Annotated[Decimal, Precision(18, 2)]
    id: UUID
    clock: time
    span: timedelta
    many: tuple[int, ...]
    several: frozenset[str]
    by_name: Mapping[str, float]
    color: Color
    point: Point
    answer: Literal["yes", "no"]
    nothing: int | None

    @classmethod
    def example(cls) -> Self:
        """The row that the query gives."""
        return cls(
            flag=True,
            whole=-1,
            real=1.5,
            text="ü",
            raw=b"\x00\xff",
            day=date(1960, 1, 2),
            moment=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
            price=Decimal("1.10"),
            id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
            clock=time(1, 2, 3, 4),
            span=timedelta(microseconds=-5),
            many=(1, 2),
            several=frozenset({"a"}),
            by_name={"k": 1.5},
            color=Color.RED,
            point=Point(1, "here"),
            answer="yes",
            nothing=None,
        )


read_purses = Pipeline("purses", aggregates=[Purse, Door], projections=[Richest, Totals, Kinds], partitions=PARTITIONS)
