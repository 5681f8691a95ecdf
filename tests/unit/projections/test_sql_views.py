"""Sql projections: views, and what is refused."""

import uuid
from datetime import date
from decimal import Decimal
from typing import Annotated, NewType

import pytest
from magnetar.projections import Sql
from magnetar.projections.declarations import view_name
from magnetar.projections.sql_views import create_view
from magnetar.projections.store import Store
from magnetar.schemas import DeclarationError, Precision, State


@pytest.fixture
def database(store: Store) -> str:
    name = f"c{uuid.uuid4().hex[:10]}"
    store.command(f"CREATE DATABASE {name}")
    for view in ("Sold", "Returned"):
        store.command(
            f"CREATE VIEW {name}.{view} AS SELECT 'tea' AS sku, toInt64(3) AS pieces, toDate('2026-01-02') AS day"
        )
    return name


class BestSellers(Sql):
    """What sells."""

    select = "SELECT sku, sum(pieces) AS sold, max(day) AS last FROM Sold GROUP BY sku"
    sku: str
    sold: int
    last: date


def test_a_projection_is_a_view_in_its_context(store: Store, database: str) -> None:
    create_view(store, database, BestSellers, set())
    create_view(store, database, BestSellers, set())
    assert store.query(f"SELECT * FROM {database}.best_sellers") == [("tea", 3, date(2026, 1, 2))]
    ((comment,),) = store.query(
        f"SELECT comment FROM system.tables WHERE database = '{database}' AND name = 'best_sellers'"
    )
    assert comment == "What sells."


class Joined(Sql):
    select = "SELECT Sold.pieces, Returned.sku AS sku FROM Sold JOIN Returned ON Sold.sku = Returned.sku"
    pieces: int
    sku: str


def test_a_column_that_says_its_table_is_taken(store: Store, database: str) -> None:
    create_view(store, database, Joined, set())
    assert store.query(f"SELECT pieces, sku FROM {database}.joined") == [(3, "tea")]


def test_view_names_are_snake_case() -> None:
    assert view_name(BestSellers) == "best_sellers"


def test_a_name_that_is_taken_is_refused(store: Store, database: str) -> None:
    with pytest.raises(DeclarationError, match="best_sellers, which is taken"):
        create_view(store, database, BestSellers, {"best_sellers"})


class Broken(Sql):
    select = "SELECT nothing FROM Sold"
    nothing: str


class Missing(Sql):
    select = "SELECT sku FROM Sold"
    sku: str
    pieces: int


class Extra(Sql):
    select = "SELECT sku, pieces FROM Sold"
    sku: str


class Ambiguous(Sql):
    select = "SELECT pieces FROM Sold JOIN Returned ON Sold.sku = Returned.sku"
    pieces: int


class WrongType(Sql):
    select = "SELECT sku FROM Sold"
    sku: int


class Nullable(Sql):
    select = "SELECT toNullable(sku) AS sku FROM Sold"
    sku: str


@pytest.mark.parametrize(
    ("projection", "words"),
    [
        (Broken, "ClickHouse refuses the query of the projection Broken.*nothing"),
        (Missing, r"Missing\.pieces is no column"),
        (Ambiguous, r"Ambiguous has a column that could be of two tables: .*ambiguous identifier 'pieces'"),
        (Extra, "has a column 'pieces' that the class lacks"),
        (WrongType, r"WrongType\.sku is declared as int, and its query gives String"),
        (Nullable, r"Nullable\.sku is declared as str, and its query gives Nullable\(String\)"),
    ],
)
def test_what_does_not_fit_is_refused_naming_it(store: Store, database: str, projection: type[Sql], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        create_view(store, database, projection, set())


Sku = NewType("Sku", str)


class Card(State):
    number: str


class Cash(State):
    pass


class Named(Sql):
    select = """
    SELECT sku, toNullable(sku) AS other, toDecimal64(1, 2) AS price, tuple('Cash', NULL, NULL) AS paid FROM Sold
    """
    sku: Sku
    other: Annotated[Sku | None, "if there is one"]
    price: Annotated[Decimal, Precision(18, 2)]
    paid: Card | Cash


def test_aliases_are_opened_and_a_union_of_structs_is_a_tuple(store: Store, database: str) -> None:
    create_view(store, database, Named, set())
