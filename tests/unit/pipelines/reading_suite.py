"""`client.query` in one process. test_reading.py runs this in a process of its own: it has one engine."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Self

import pytest
from magnetar.pipelines import Client, Found, Pipeline
from magnetar.projections import Fold, Sql, Window
from magnetar.schemas import Position, QueryRefused, SettingsError, TablesBehind

from magnetar.testing import Embedded
from tests.unit.pipelines.purses import Door, Knock, Paid, Pay, Purse, Twice
from tests.unit.pipelines.typed import Kinds, Richest, Totals, read_purses


@pytest.fixture
def running() -> Iterator[Embedded]:
    with read_purses.embedded() as running:
        yield running


def test_rows_are_of_the_projections_class(running: Embedded) -> None:
    for n in (1, 5, 7):
        running.client.ask(Purse, f"p{n}", Pay(n))
    assert running.client.query(Richest, order_by="total DESC", limit=2) == (Richest("p7", 7), Richest("p5", 5))
    assert running.client.query(Richest, "total < {most:Int64} AND id != {id:String}", most=7, id="p1") == (
        Richest("p5", 5),
    )


def test_what_a_parameter_says_is_never_sql(running: Embedded) -> None:
    running.client.ask(Purse, "a", Pay(1))
    assert running.client.query(Richest, "id = {id:String}", id="x' OR 1 = 1 --") == ()
    with pytest.raises(QueryRefused, match="UNKNOWN_QUERY_PARAMETER"):
        running.client.query(Richest, "id = {id:String}")


def test_a_row_has_the_values_of_its_fields_types(running: Embedded) -> None:
    running.client.ask(Purse, "a", Pay(1))
    (row,) = running.client.query(Kinds)
    assert row == Kinds.example()


def test_what_was_asked_is_seen(running: Embedded) -> None:
    for n in range(1, 30):
        receipt = running.client.ask(Purse, f"p{n % 7}", Pay(1))
        found = running.client.query(Richest, after=receipt, wait_seconds=0)
        assert (sum(row.total for row in found), found.behind) == (n, None)
        assert running.client.query(Richest, after=[receipt.position, receipt]) == found


def test_the_same_in_asyncio(running: Embedded) -> None:
    async def main() -> Found[Richest]:
        async with Client(read_purses) as client:
            receipt = await client.ask(Purse, "a", Pay(4))
            return await client.query(Richest, after=receipt)

    assert asyncio.run(main()) == (Richest("a", 4),)


def test_a_position_of_what_the_projection_does_not_read_is_no_reason_to_wait(running: Embedded) -> None:
    receipt = running.client.ask(Door, "a", Knock())
    assert running.client.query(Richest, after=receipt, wait_seconds=0) == ()


def test_an_incremental_projection_is_up_to_date_too(running: Embedded) -> None:
    for n in range(1, 4):
        receipt = running.client.ask(Purse, "a", Pay(n))
        running.client.ask(Door, "a", Knock())
        assert running.client.query(Totals, after=receipt, wait_seconds=0) == (Totals("a", n * (n + 1) // 2, n),)


class Standing(Fold):
    """What is in a purse; one with more than ten in it is not listed."""

    total: int = 0

    def apply(self, event: Paid | Twice) -> Self | None:
        match event:
            case Paid(total=total):
                return None if total > 10 else self.replace(total=total)
            case Twice():
                return self


class Daily(Fold):
    window = Window(timedelta(days=1))
    total: int = 0

    def apply(self, event: Paid) -> Self:
        return self.replace(total=event.total)


folded = Pipeline("folded", aggregates=[Purse], projections=[Standing, Daily], partitions=4)


def test_the_row_of_one_aggregate_is_got_by_its_id() -> None:
    with folded.embedded() as running:
        receipt = running.client.ask(Purse, "a'b", Pay(4))
        assert running.client.get(Standing, "a'b", after=receipt) == Standing(4)
        assert running.client.get(Standing, "nobody") is None
        receipt = running.client.ask(Purse, "a'b", Pay(7))
        assert running.client.get(Standing, "a'b", after=receipt) is None

        async def main() -> Standing | None:
            async with Client(folded) as client:
                return await client.get(Standing, "c", after=await client.ask(Purse, "c", Pay(5)))

        assert asyncio.run(main()) == Standing(5)
        with pytest.raises(SettingsError, match="not told apart by an aggregate's id alone"):
            running.client.get(Daily, "a'b")
        not_a_fold: Any = Richest
        with pytest.raises(SettingsError, match="not told apart by an aggregate's id alone"):
            running.client.get(not_a_fold, "a'b")
        with pytest.raises(TablesBehind):
            running.client.get(
                Standing, "c", after=Position(f"folded/Purse/{receipt.position.parts()[2]}/99"), wait_seconds=0
            )


class Unknown(Sql):
    select = "SELECT 1 AS x"
    x: int


def test_what_is_not_of_this_pipeline_is_refused(running: Embedded) -> None:
    with pytest.raises(SettingsError, match="Unknown is no projection of the pipeline 'purses'"):
        running.client.query(Unknown)
    for position in ("shop/Purse/0/1", "purses/Nothing/0/1", "purses/Purse/9/1", "purses/Purse/0/x"):
        with pytest.raises(SettingsError, match=r"position|another pipeline"):
            running.client.query(Richest, after=Position(position))


def test_freshness_is_a_table(running: Embedded) -> None:
    running.client.ask(Purse, "a", Pay(1))
    rows = running.query("SELECT `projection`, aggregate, sum(number) AS n FROM purses.freshness GROUP BY ALL")
    assert {(row["projection"], row["aggregate"]): row["n"] for row in rows} == {
        ("mirror", "Purse"): 1,
        ("mirror", "Door"): 0,
        ("richest", "Purse"): 1,
        ("totals", "Purse"): 1,
        ("kinds", "Purse"): 1,
    }
