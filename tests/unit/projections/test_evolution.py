"""Schemas that grow: one backlog of several versions, and tables that were filled before."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from magnetar.projections.mirror import Mirror
from magnetar.projections.views import views
from magnetar.schemas import Event, Immutable, PartitionRefused, Precision, State, StoreUnavailable
from magnetar.schemas.aggregate_schema import AggregateSchema

from tests.unit.projections.test_mirror import Context, Denied, Open


class Color1(Enum):
    RED = "red"


class Color2(Enum):
    BLUE = "blue"
    RED = "red"


class Price1(Immutable, wire_name="Price"):
    amount: Annotated[Decimal, Precision(18, 2)]


class Price2(Immutable, wire_name="Price"):
    currency: str = ""
    amount: Annotated[Decimal, Precision(18, 2)] = Decimal(0)
    note: str | None = None


class Card1(State, wire_name="Card"):
    number: str


class Card2(State, wire_name="Card"):
    number: str
    holder: str | None = None


class Cash(State):
    pass


class Transfer(State):
    iban: str


class Bought1(Event, wire_name="Bought"):
    item: str
    color: Color1
    price: Price1
    rebate: Price1 | None = None
    others: tuple[Price1, ...] = ()
    by_name: Mapping[str, Price1] = {}
    paid: Card1 | Cash = Cash()


class Bought2(Event, wire_name="Bought"):
    """Its fields are in another order, and some are new."""

    color: Color2
    item: str
    count: int = 1
    day: date = date(2020, 2, 29)
    tags: tuple[str, ...] = ("none", "yet")
    labels: Mapping[str, int] = {"a": 1}
    gift: Price2 = Price2("EUR", Decimal("1.50"))
    price: Price2 = Price2()
    rebate: Price2 | None = None
    others: tuple[Price2, ...] = ()
    by_name: Mapping[str, Price2] = {}
    paid: Card2 | Cash | Transfer = Cash()


class Returned(Event):
    why: str | None = None


BOUGHT1 = Bought1(
    "tea",
    Color1.RED,
    Price1(Decimal("2.50")),
    Price1(Decimal(1)),
    (Price1(Decimal(3)),),
    {"x": Price1(Decimal(4))},
    Card1("4711"),
)
BOUGHT2 = Bought2(Color2.BLUE, "pot", 7, tags=(), labels={}, price=Price2("USD", Decimal(9), "n"), paid=Transfer("DE"))


def priced(amount: str, currency: str = "", note: str | None = None) -> dict[str, Any]:
    return {"currency": currency, "amount": Decimal(amount), "note": note}


def paid(kind: str, **branches: Any) -> dict[str, Any]:
    return {"type": kind, "Card": None, "Cash": None, "Transfer": None, **branches}


OLD_ROW: Any = (
    "tea", "red", 1, date(2020, 2, 29), ["none", "yet"], {"a": 1}, priced("1.50", "EUR"), priced("2.50"),
    priced("1.00"), [priced("3.00")], {"x": priced("4.00")}, paid("Card", Card={"number": "4711", "holder": None}),
)  # fmt: skip
NEW_ROW: Any = (
    "pot", "blue", 7, date(2020, 2, 29), [], {}, priced("1.50", "EUR"), priced("9.00", "USD", "n"), None, [], {},
    paid("Transfer", Transfer={"iban": "DE"}),
)  # fmt: skip
SELECT = (
    "SELECT item, color, count, day, tags, labels, gift, price, rebate, others, by_name, paid FROM DB.Bought "
    "ORDER BY _number, _version"
)


def mirror_all(context: Context) -> None:
    loop = context.loop()
    for _ in range(2 * len(context.schemas) + 2):  # a range is of one schema, and a claim alone counts as nothing
        loop.step()


def release(context: Context, events: Sequence[type[Event]]) -> None:
    """Deploy code with these events."""
    context.schemas.append(context.schema(list(events)))
    context.mirror = context.open()


def test_a_backlog_of_three_versions_is_mirrored_in_one_run(store: Any, tmp_path: Path) -> None:
    context = Context(store, tmp_path, [Bought1])
    context.accepted(1, BOUGHT1)
    context.schemas.append(context.schema([Bought1, Returned]))
    context.accepted(2, Returned("broken"), BOUGHT1)
    release(context, [Bought2, Returned])
    context.accepted(3, BOUGHT2)
    mirror_all(context)
    assert context.rows(SELECT) == [OLD_ROW, OLD_ROW, NEW_ROW]
    assert context.rows("SELECT why, _number FROM DB.Returned") == [("broken", 2)]


def test_rows_that_are_there_already_have_the_defaults_of_new_columns(store: Any, tmp_path: Path) -> None:
    context = Context(store, tmp_path, [Bought1])
    context.accepted(1, BOUGHT1)
    mirror_all(context)
    release(context, [Bought2, Returned])
    assert context.rows(SELECT) == [OLD_ROW]
    context.accepted(2, BOUGHT2)
    mirror_all(context)
    assert context.rows(SELECT) == [OLD_ROW, NEW_ROW]


def test_older_code_that_starts_again_does_not_narrow_the_columns(store: Any, tmp_path: Path) -> None:
    context = Context(store, tmp_path, [Bought1])
    release(context, [Bought2])
    context.accepted(1, BOUGHT2)
    mirror_all(context)
    release(context, [Bought1])
    release(context, [Bought2])
    assert context.rows(SELECT) == [NEW_ROW]


@pytest.mark.parametrize(
    ("events", "named"), [([Bought1, Returned], "Returned"), ([Bought2], "Bought.(count|day|tags|labels|gift)")]
)
def test_what_this_code_lacks_is_not_left_out_of_the_mirror(
    store: Any, tmp_path: Path, events: list[type[Event]], named: str
) -> None:
    context = Context(store, tmp_path, [Bought1])
    older = context.mirror
    context.schemas.append(context.schema(events))
    context.accepted(1, BOUGHT1 if Bought1 in events else BOUGHT2)
    context.mirror = older
    with pytest.raises(PartitionRefused, match=f"carry {named}, which this code lacks"):
        mirror_all(context)
    assert context.rows("SELECT count() FROM DB.commits") == [(0,)]


def test_a_nested_default_that_old_rows_cannot_get_is_refused(store: Any, tmp_path: Path) -> None:
    class Price3(Immutable, wire_name="Price"):
        amount: Annotated[Decimal, Precision(18, 2)]
        currency: str = "EUR"

    class Bought3(Event, wire_name="Bought"):
        price: Price3

    context = Context(store, tmp_path, [Bought1])
    with pytest.raises(StoreUnavailable, match=r"rows with Bought\.price.*default of its new field currency"):
        release(context, [Bought3])


def test_a_new_branch_of_a_union_may_have_defaults_since_no_row_is_of_it(store: Any, tmp_path: Path) -> None:
    class Coin(State):
        kind: str
        worth: Annotated[Decimal, Precision(18, 2)] = Decimal("0.01")

    class Bought4(Event, wire_name="Bought"):
        item: str
        paid: Card1 | Cash | Coin = Cash()

    class Bought0(Event, wire_name="Bought"):
        item: str
        paid: Card1 | Cash = Cash()

    context = Context(store, tmp_path, [Bought0])
    context.accepted(1, Bought0("tea", Card1("4711")))
    mirror_all(context)
    release(context, [Bought4])
    context.accepted(2, Bought4("pot", Coin("euro")))
    mirror_all(context)
    rows = [row[0] for row in context.rows("SELECT paid FROM DB.Bought ORDER BY _number")]
    assert [(row["type"], row["Coin"]) for row in rows] == [
        ("Card", None),
        ("Coin", {"kind": "euro", "worth": Decimal("0.01")}),
    ]


def test_two_aggregates_share_a_context(store: Any, tmp_path: Path) -> None:
    context = Context(store, tmp_path, [Bought1])
    other = AggregateSchema(context.name, "Return", commands=[Open], events=[Returned], rejections=[Denied])
    mirror = Mirror(store, other, partitions=4, schema_text=lambda number: other.commit_json, folder=tmp_path)
    mirror.prepare()
    mirror.show()
    for statement in views([context.mirror.tables, mirror.tables]).values():
        store.command(statement)
    context.accepted(1, BOUGHT1)
    mirror_all(context)
    context.mirror, context.schemas, context.messages = mirror, [other], []
    context.claim()
    context.accepted(1, Returned("cold"))
    mirror_all(context)
    assert context.rows("SELECT item FROM DB.Bought") == [("tea",)]
    assert context.rows("SELECT why FROM DB.Returned") == [("cold",)]
    assert context.rows("SELECT _aggregate, _number FROM DB.commits ORDER BY 1") == [("Account", 1), ("Return", 1)]
