"""Incremental Sql: what is refused, and that the rows are those of the query over all events at once."""

import math
import random
import re
import types
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from magnetar.projections import Sql, leased_table
from magnetar.projections.decoding import Decoder, Decoding
from magnetar.projections.incremental import MERGEABLE, plan_of, read_by, refuse_functions
from magnetar.projections.incremental_table import IncrementalTable
from magnetar.projections.projected_table import Source as AggregateSource
from magnetar.projections.range_loop import RangeLoop
from magnetar.projections.store import Store
from magnetar.schemas import DeclarationError, Event, LeaseLost, Precision, StoreUnavailable

from tests.unit.projections.test_mirror import Closed, Context, FakeFeed

START = datetime(2026, 1, 30, tzinfo=UTC)


class Sold(Event):
    """Something was sold. It has a field of each kind that queries add up or group by."""

    sku: str
    at: datetime
    pieces: int
    price: Annotated[Decimal, Precision(18, 2)]
    weight: float
    coupon: str | None = None


def sales(select: str, fields: dict[str, Any]) -> type[Sql]:
    """A projection with this query."""
    namespace = {"select": select, "incremental": True, "__annotations__": fields}
    made: type[Sql] = types.new_class("Sales", (Sql,), exec_body=lambda body: body.update(namespace))
    return made


class Shop:
    """A context whose log has sales, and incremental tables over it."""

    def __init__(self, store: Store, folder: Path, decoding: Decoding = Decoding.TRIED) -> None:
        self.context = Context(store, folder, (Sold, Closed), decoding=decoding)
        self.store = store
        self._folder = folder
        self._generations = 0
        self._commits = 0

    def sell(self, *commits: Sequence[Event]) -> None:
        """A commit for each."""
        self._commits = len(commits)
        for number, events in enumerate(commits, 1):
            self.context.accepted(number, *events, version=10 * number)
        self.context.loop().step()

    def table(self, select: str, **fields: Any) -> IncrementalTable:
        """A new generation of the table of a projection with this query."""
        self._generations += 1
        return self.open(sales(select, fields), self._generations)

    def open(self, projection: type[Sql], generation: int, decoder: Decoder | None = None) -> IncrementalTable:
        """A table of this projection, as a projector opens it."""
        schema = self.context.schemas[-1]
        source = AggregateSource(
            schema,
            4,
            lambda number: self.context.schemas[number - 1].commit_json,
            decoder=decoder or self.context.decoder,
        )
        table = IncrementalTable(self.store, projection, source, generation=generation, folder=self._folder)
        table.prepare()
        table.show()
        return table

    def loop(self, table: IncrementalTable, **options: Any) -> RangeLoop:
        """A range loop that fills it."""
        messages = self.context.messages
        return RangeLoop(table, 0, lambda after: FakeFeed(messages, after), nonce=uuid.uuid4().hex, **options)

    def filled(self, table: IncrementalTable, range_commits_max: int) -> list[tuple[Any, ...]]:
        """Its rows after ranges of that size."""
        loop = self.loop(table, range_commits_max=range_commits_max)
        while loop.number < self._commits:
            loop.step()
        loop.close()
        return self.rows("SELECT * FROM DB.sales")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, sorted."""
        return sorted(self.context.rows(sql), key=repr)


@pytest.fixture
def shop(store: Store, tmp_path: Path) -> Shop:
    return Shop(store, tmp_path)


@pytest.fixture(params=[Decoding.ENGINE, Decoding.PYTHON])
def either(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Shop:
    """A shop whose commits ClickHouse decodes, and one where Python does."""
    return Shop(store, tmp_path, request.param)


def sold(sku: str = "tea", pieces: int = 1, day: int = 0, **fields: Any) -> Sold:
    values: dict[str, Any] = {"price": Decimal("1.10"), "weight": 0.5} | fields
    return Sold(sku=sku, at=START + timedelta(days=day), pieces=pieces, **values)


# --- the test of truth ------------------------------------------------------------------------------------------------

KEYS: dict[str, Any] = {
    "sku": str,
    "toStartOfMonth(at) AS month": date,
    "coupon": str | None,
    "pieces % 3 AS rest": int,
    "_id AS id": str,
    "if(weight > 1, 'heavy', 'light') AS class": str,
}
SUMS: dict[str, Any] = {
    "count() AS n": int,
    "count(coupon) AS coupons": int,
    "sum(pieces) AS total": int,
    "sum(price) AS income": Decimal,
    "avg(price) AS mean_price": float,
    "avgIf(pieces, coupon IS NULL) AS mean_pieces": float,
    "sum(weight) AS weight_sum": float,
    "min(at) AS first_at": datetime,
    "max(price) AS dearest": Decimal,
    "maxIf(sku, pieces > 0) AS last_sku": str,
    "uniqExact(sku) AS skus": int,
    "uniqExactIf(sku, coupon IS NOT NULL) AS coupon_skus": int,
    "stddevPop(weight) AS spread": float,
    "stddevSamp(weight) AS sample_spread": float,
    "varPop(weight) AS variance": float,
    "varSamp(pieces) AS sample_variance": float,
    "covarPop(weight, pieces) AS covariance": float,
    "covarSamp(weight, pieces) AS sample_covariance": float,
    "corr(weight, pieces) AS correlation": float,
    "sumWithOverflow(toInt8(pieces * 20)) AS turned_over": int,
    "groupBitAnd(pieces) AS all_bits": int,
    "groupBitOr(pieces) AS any_bits": int,
    "groupBitXor(pieces) AS bits": int,
    "sum(price) / count() + max(pieces) AS mixed": Decimal,
    "max(_number) AS newest": int,
}
WHERES = ("", "WHERE pieces > 0", "WHERE sku != 'cup' AND at < '2026-02-02'", "WHERE coupon IS NOT NULL")

one_sale = st.builds(
    sold,
    sku=st.sampled_from(["tea", "cup", "pot"]),
    pieces=st.integers(-5, 9),
    day=st.integers(0, 5),
    price=st.integers(-(10**9), 10**9).map(lambda cents: Decimal(cents).scaleb(-2)),
    weight=st.floats(-1e6, 1e6, allow_nan=False),
    coupon=st.sampled_from([None, "a", "b"]),
)
commits = st.lists(
    st.lists(st.one_of(one_sale, one_sale, st.just(Closed())), min_size=1, max_size=4), min_size=1, max_size=6
)


def name_of(item: str) -> str:
    return item.rpartition(" AS ")[2]


@st.composite
def queries(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    keys = draw(st.lists(st.sampled_from(list(KEYS)), max_size=3, unique=True))
    sums = draw(st.lists(st.sampled_from(list(SUMS)), min_size=1, max_size=5, unique=True))
    items = draw(st.permutations(keys + sums))
    where = draw(st.sampled_from(WHERES))
    group = f"GROUP BY {', '.join(name_of(key) for key in keys)}" if keys else ""
    having = draw(st.sampled_from(["", "HAVING count() > 1"]))
    fields = {name_of(item): (KEYS | SUMS)[item] for item in items}
    return f"SELECT {', '.join(items)} FROM Sold {where} {group} {having}", fields


def alike(one: object, other: object) -> bool:
    """Equal; floats but for rounding, of sums whose parts may be a million times larger."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))
    return one == other


def same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]], exact: list[bool]) -> bool:
    """Whether two tables have equal rows, in whatever order."""
    key = lambda row: repr([value for value, is_exact in zip(row, exact, strict=True) if is_exact])  # noqa: E731
    pairs = zip(sorted(one, key=key), sorted(other, key=key), strict=False)
    return len(one) == len(other) and all(all(map(alike, *pair)) for pair in pairs)


def some_sales(dice: random.Random) -> list[list[Event]]:
    """Commits of none to three sales each, over three articles."""
    return [
        [
            sold(
                dice.choice(["tea", "cup", "pot"]),
                pieces=dice.randint(-5, 9),
                day=dice.randint(0, 5),
                price=Decimal(dice.randint(-(10**9), 10**9)).scaleb(-2),
                weight=dice.uniform(-1e6, 1e6),
                coupon=dice.choice([None, "a", "b"]),
            )
            for _ in range(dice.randint(0, 3))
        ]
        for _ in range(30)
    ]


def test_every_aggregate_that_is_kept_comes_to_the_same_whatever_the_ranges(shop: Shop) -> None:
    text = " ".join(SUMS)
    assert {name for name in MERGEABLE.values() if not re.search(rf"\b{name}(If)?\(", text)} == set(), "not tried"
    shop.sell(*some_sales(random.Random(1)))
    shop.store.command(f"USE {shop.context.name}")
    fields = {"sku": str, **{name_of(item): kind for item, kind in SUMS.items()}}
    select = f"SELECT sku, {', '.join(SUMS)} FROM Sold GROUP BY sku"
    plain, exact = shop.rows(select), [kind is not float for kind in fields.values()]
    for size in (1, 7, 50_000):
        assert same(shop.filled(shop.table(select, **fields), size), plain, exact), size


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(query=queries(), log=commits)
def test_rows_are_those_of_the_query_over_all_events_whatever_the_ranges(
    store: Store, tmp_path: Path, query: tuple[str, dict[str, Any]], log: list[list[Event]]
) -> None:
    select, fields = query
    shop = Shop(store, tmp_path)
    shop.sell(*log)
    store.command(f"USE {shop.context.name}")
    plain = shop.rows(select)
    exact = [kind is not float for kind in fields.values()]
    for size, way in ((1, Decoding.ENGINE), (50_000, Decoding.ENGINE), (50_000, Decoding.PYTHON)):
        shop.context.decoder = Decoder(store, tmp_path, way)
        assert same(shop.filled(shop.table(select, **fields), size), plain, exact), (size, way, select)


TOTALS = "SELECT sku, sum(pieces) AS total, max(_number) AS newest FROM Sold GROUP BY sku"
FIELDS: dict[str, Any] = {"sku": str, "total": int, "newest": int}


def many_sold(shop: Shop) -> None:
    """In 50,000 commits, with more groups than ClickHouse sums up in one go by itself."""
    shop.sell(*([sold(f"{n}-{i}", pieces=n + i) for i in range(3)] for n in range(50_000)))
    shop.context.loop().step()  # what was too much for one range of the mirror


def blocks_of(shop: Shop, table: IncrementalTable) -> int:
    """How many blocks were inserted."""
    _, name = table.name.replace("`", "").split(".")
    where = f"database = '{shop.context.name}' AND table = '{name}'"
    return int(shop.rows(f"SELECT max(max_block_number) FROM system.parts WHERE {where}")[0][0])


def test_a_range_of_fifty_thousand_commits_is_one_block_with_the_rows_of_the_query(shop: Shop) -> None:
    many_sold(shop)
    shop.store.command(f"USE {shop.context.name}")
    table = shop.table(TOTALS, **FIELDS)
    filled = shop.filled(table, 50_001)  # with the claim
    assert len(filled) == 150_000
    assert filled == shop.rows(TOTALS)
    assert blocks_of(shop, table) == 1


def test_with_clickhouses_own_sizes_of_blocks_it_would_be_several(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    many_sold(shop)
    monkeypatch.setattr(leased_table, "INSERT_SETTINGS", "insert_deduplicate = 1, min_insert_block_size_rows = 50000")
    table = shop.table(TOTALS, **FIELDS)
    shop.filled(table, 50_001)
    assert blocks_of(shop, table) > 1


# --- exactly once -----------------------------------------------------------------------------------------------------


def test_a_range_that_is_inserted_again_adds_nothing_even_when_its_token_is_forgotten(shop: Shop) -> None:
    shop.sell([sold(pieces=1)], [Closed()], [sold(pieces=2), sold("cup")])
    table = shop.table(TOTALS, **FIELDS)
    assert shop.filled(table, 50_000) == [("cup", 1, 3), ("tea", 3, 3)]
    for name in (f"{table.name}", "magnetar.pending"):
        shop.store.command(f"OPTIMIZE TABLE {name} FINAL")
    shop.store.command(f"ALTER TABLE {table.name} MODIFY SETTING non_replicated_deduplication_window = 0")
    assert shop.filled(table, 50_000) == [("cup", 1, 3), ("tea", 3, 3)]
    assert shop.filled(shop.open(table.projection, 1), 50_000) == [("cup", 1, 3), ("tea", 3, 3)]


def check_nothing(self: IncrementalTable, partition: int, *_: Any) -> None:
    """Take it for empty."""
    self._last[partition] = self._events[partition] = 0


def test_without_looking_what_the_table_has_that_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.sell([sold(pieces=1)])
    table = shop.table(TOTALS, **FIELDS)
    shop.filled(table, 50_000)
    shop.store.command(f"ALTER TABLE {table.name} MODIFY SETTING non_replicated_deduplication_window = 0")
    monkeypatch.setattr(IncrementalTable, "check", check_nothing)
    assert shop.filled(table, 50_000) == [("tea", 2, 1)]


def test_who_has_lost_the_lease_adds_nothing(either: Shop) -> None:
    either.sell([sold(pieces=1)])
    table = either.table(TOTALS, **FIELDS)
    old, new = either.loop(table), either.loop(table)
    with pytest.raises(LeaseLost):
        old.step()
    assert either.rows("SELECT * FROM DB.sales") == []
    new.step()
    assert either.rows("SELECT * FROM DB.sales") == [("tea", 1, 1)]


@pytest.mark.parametrize("ways", [(Decoding.ENGINE, Decoding.PYTHON), (Decoding.PYTHON, Decoding.ENGINE)])
def test_a_range_that_is_inserted_again_the_other_way_is_kept_from_it_by_its_token(
    shop: Shop, tmp_path: Path, ways: tuple[Decoding, Decoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sell([sold(pieces=1)], [sold("cup")])
    table = shop.table(TOTALS, **FIELDS)
    monkeypatch.setattr(IncrementalTable, "check", check_nothing)
    for way in (*ways, *ways):
        shop.filled(shop.open(table.projection, 1, Decoder(shop.store, tmp_path, way)), 50_000)
    assert shop.rows("SELECT * FROM DB.sales") == [("cup", 1, 2), ("tea", 1, 1)]


@pytest.mark.parametrize("change", ["DELETE WHERE sku = 'tea'", "UPDATE _last = 99 WHERE sku = 'tea'"])
def test_rows_that_were_lost_or_changed_by_hand_are_noticed(shop: Shop, change: str) -> None:
    shop.sell([sold(pieces=1)], [sold("cup")])
    table = shop.table(TOTALS, **FIELDS)
    shop.filled(table, 1)
    shop.store.command(f"ALTER TABLE {table.name} {change} SETTINGS mutations_sync = 2")
    with pytest.raises(StoreUnavailable, match=r"does not fit the log.*magnetar rebuild"):
        shop.loop(table)


@pytest.mark.parametrize("change", ["DELETE WHERE sku = 'cup'", "DELETE WHERE 1", "UPDATE _events = 1 WHERE 1"])
def test_what_is_lost_while_it_is_filled_is_noticed_at_the_next_range_and_for_good(shop: Shop, change: str) -> None:
    more_than_is_lost = [sold() for _ in range(9)]
    shop.sell([sold(pieces=1)], [sold("cup"), sold("cup")], more_than_is_lost)
    table = shop.table(TOTALS, **FIELDS)
    loop = shop.loop(table, range_commits_max=3)
    assert loop.step() == 2  # the claim is the third
    shop.store.command(f"ALTER TABLE {table.name} {change} SETTINGS mutations_sync = 2")
    with pytest.raises(StoreUnavailable, match=r"does not fit the log.*magnetar rebuild"):
        loop.step()
    with pytest.raises(StoreUnavailable, match=r"does not fit the log.*magnetar rebuild"):
        shop.loop(shop.open(table.projection, 1))


def test_a_query_that_clickhouse_cannot_compute_stops_its_partition_until_a_rebuild_fills_another_table(
    shop: Shop,
) -> None:
    shop.sell([sold(pieces=2)], [sold(pieces=0)])
    table = shop.table("SELECT sku, sum(intDiv(10, pieces)) AS each FROM Sold GROUP BY sku", sku=str, each=int)
    for _ in range(2):  # whoever takes it back comes to the same
        with pytest.raises(StoreUnavailable, match=r"Division by zero.*log has everything"):
            shop.filled(table, 50_000)
    assert shop.rows("SELECT * FROM DB.sales") == []
    mended = "SELECT sku, sum(if(pieces = 0, 0, intDiv(10, pieces))) AS each FROM Sold GROUP BY sku"
    assert shop.filled(shop.table(mended, sku=str, each=int), 50_000) == [("tea", 5)]


def test_a_view_may_change_without_a_rebuild(shop: Shop) -> None:
    shop.sell([sold(pieces=1)], [sold("cup", pieces=3)])
    shop.filled(shop.table(TOTALS, **FIELDS), 50_000)
    shop.open(sales(f"{TOTALS} HAVING total > 1", FIELDS), 1)
    assert shop.rows("SELECT * FROM DB.sales") == [("cup", 3, 2)]


def test_a_range_without_such_events_adds_nothing(shop: Shop) -> None:
    shop.sell([Closed()], [Closed()])
    table = shop.table("SELECT count() AS n FROM Sold", n=int)
    assert shop.filled(table, 1) == [(0,)]
    assert shop.rows(f"SELECT count() FROM {table.name}") == [(0,)]


def test_a_table_of_another_query_goes_on_being_shown_and_is_not_filled(shop: Shop) -> None:
    shop.sell([sold(pieces=1)])
    shop.filled(shop.table(TOTALS, **FIELDS), 50_000)
    changed = sales(TOTALS.replace("sum(pieces)", "sum(pieces * 2)"), FIELDS)
    with pytest.raises(StoreUnavailable, match=r"Sales has changed: generation 1 was filled by other code.*rebuild"):
        shop.open(changed, 1)
    assert shop.rows("SELECT * FROM DB.sales") == [("tea", 1, 1)]
    assert shop.filled(shop.open(changed, 2), 50_000) == [("tea", 2, 1)]


def test_events_of_an_older_schema_have_the_defaults_of_new_fields(shop: Shop) -> None:
    class Sold2(Event, wire_name="Sold"):
        sku: str
        at: datetime
        pieces: int
        price: Annotated[Decimal, Precision(18, 2)]
        weight: float
        coupon: str | None = None
        clerk: str = "nobody"

    shop.sell([sold(pieces=1)])
    shop.context.schemas.append(shop.context.schema([Sold2, Closed]))
    table = shop.table("SELECT clerk, sum(pieces) AS total FROM Sold GROUP BY clerk", clerk=str, total=int)
    assert shop.filled(table, 1) == [("nobody", 1)]


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "SELECT sku, sum(pieces) AS n FROM Sold JOIN Closed USING _id GROUP BY sku": "it has a join. Carry the field",
    "SELECT sku, sum(pieces) AS n FROM Sold, Closed GROUP BY sku": "it has a join",
    "SELECT count() AS n FROM Sold ARRAY JOIN [1] AS x": "it has a join",
    "SELECT sku, row_number() OVER (ORDER BY at) AS n FROM Sold": "a window function",
    "SELECT DISTINCT sku FROM Sold": "it has DISTINCT. Group by the columns instead",
    "SELECT count(DISTINCT sku) AS n FROM Sold": r"it has DISTINCT. Count with uniqExact\(…\)",
    "SELECT sku, count() AS n FROM Sold GROUP BY sku LIMIT 3": "it has LIMIT",
    "SELECT sku, count() AS n FROM Sold GROUP BY sku LIMIT 1 BY sku": "it has LIMIT",
    "SELECT sku, count() AS n FROM Sold GROUP BY sku WITH TOTALS": "WITH TOTALS",
    "SELECT sku, count() AS n FROM Sold GROUP BY ALL": "GROUP BY ALL",
    "WITH 1 AS x SELECT count() AS n FROM Sold": "it has WITH",
    "SELECT count() AS n FROM (SELECT * FROM Sold)": "a subquery",
    "SELECT count() AS n FROM Sold WHERE sku IN (SELECT sku FROM Sold)": "a subquery",
    "SELECT count() AS n FROM Sold UNION ALL SELECT count() AS n FROM Sold": "no single SELECT",
    "SELECT count() AS n FROM Sold FINAL": "does not read the rows of one event",
    "SELECT 1 AS n": "does not read the rows of one event|nothing is aggregated",
    "SELECT sku FROM Sold": "nothing is aggregated",
    "SELECT sku, count() FROM Sold GROUP BY sku": r"'count\(\)' has no name. Name it",
    "SELECT count() AS n FROM Sold GROUP BY toDate(at)": r"it groups by toDate.*, which has no name",
    "SELEC 1": "no single SELECT|cannot be taken apart",
    "SELECT (": "cannot be taken apart",
    "SELECT 1; SELECT 2": "not one statement",
}


@pytest.mark.parametrize(("select", "words"), REFUSED.items(), ids=map(str, range(len(REFUSED))))
def test_what_cannot_be_added_up_is_refused_when_it_is_declared(select: str, words: str) -> None:
    with pytest.raises(DeclarationError, match=f"P cannot be kept incrementally: .*({words})"):
        plan_of("P", select)


REFUSED_CALLS = {
    "any(sku)": "depends on their order",
    "argMax(sku, at)": "depends on their order",
    "first_value(sku)": "depends on their order",
    "groupArray(sku)": "depends on their order",
    "topK(3)(sku)": "depends on their order",
    "quantile(0.5)(pieces)": "looks at a sample",
    "median(pieces)": "looks at a sample",
    "uniq(sku)": "looks at a sample",
    "anyIf(sku, pieces > 1)": "depends on their order",
    "sumMap(map(sku, pieces))": "nothing is known",
    "sumOrNull(pieces)": "nothing is known",
    "count() + toUInt64(now())": "gives another value when it is asked later",
    "max(rand() + pieces)": "gives another value when it is asked later",
}


@pytest.mark.parametrize(("call", "words"), REFUSED_CALLS.items(), ids=map(str, range(len(REFUSED_CALLS))))
def test_what_gives_another_value_when_it_is_cut_otherwise_is_refused_at_start(
    shop: Shop, call: str, words: str
) -> None:
    with pytest.raises(DeclarationError, match=f"Sales cannot be kept incrementally: .*{words}"):
        shop.table(f"SELECT sku, {call} AS x FROM Sold GROUP BY sku", sku=str, x=str)


@pytest.mark.parametrize(
    ("select", "fields", "words"),
    [
        ("SELECT sku, sum(piece) AS n FROM Sold GROUP BY sku", {"sku": str, "n": int}, "ClickHouse refuses.*piece"),
        ("SELECT sku, sum(pieces) AS n FROM Sold GROUP BY sku", {"sku": str, "n": str}, "n is declared as str"),
        ("SELECT sku, sum(pieces) AS n FROM Sold GROUP BY sku", {"sku": str}, "a column 'n' that the class lacks"),
        (
            "SELECT sku AS s, upper(sku) AS u, count() AS n FROM Sold GROUP BY s",
            {"s": str, "u": str, "n": int},
            "has to be a key itself",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_start(shop: Shop, select: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        shop.table(select, **fields)


@pytest.mark.parametrize(
    ("select", "read"),
    [
        ("SELECT ' FROM X' AS a, count() AS n -- FROM Y\nFROM Sold", (None, "Sold")),
        ("select count() as n from `shop`.`Sold` as s", ("shop", "Sold")),
        ("SELECT 1", (None, "")),
    ],
)
def test_the_event_is_found_without_taking_the_query_apart(select: str, read: tuple[str | None, str]) -> None:
    assert read_by(select) == read


def test_a_query_is_cut_and_not_written_anew() -> None:
    plan = plan_of(
        "P",
        """
        SELECT s.sku AS sku, toStartOfMonth(at) AS month, -- the first day
            sumIf(pieces, sku != ') AS x') / COUNT(*) AS share
        FROM shop.Sold AS s WHERE pieces > 1 GROUP BY s.sku, month HAVING sum(pieces) > 1 ORDER BY share;
        """,
    )
    assert (plan.database, plan.event, plan.where) == ("shop", "Sold", "pieces > 1")
    assert plan.shown("T") == (
        "SELECT `sku`, `month`, sumIfMerge(_s0) / countMerge(_s1) AS `share` FROM T GROUP BY `sku`, `month` "
        "HAVING sumMerge(_s2) > 1 ORDER BY share"
    )
    assert (
        "toStartOfMonth(at) AS `month`, sumIfState(pieces, sku != ') AS x') AS _s0, countState() AS _s1"
        in plan.kept("S")
    )
    refuse_functions("P", plan, {"sum", "count"}, set())
