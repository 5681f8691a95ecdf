"""How far each projection is, as ClickHouse tells."""

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.freshness import MIRROR, Kept, behind, behind_in, freshness_view, standings
from magnetar.projections.http_front import HttpFront
from magnetar.projections.query import read_endpoint
from magnetar.projections.store import Store
from magnetar.schemas import Position, SettingsError

VIEWS = ("order__events", "order__commits")


class Tables:
    """Two generations of a mirror in a database of its own, and what is written down of their progress."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = f"c{uuid.uuid4().hex[:10]}"
        store.command(f"CREATE DATABASE {self.name}")
        for view in VIEWS:
            for generation in (1, 2):
                store.command(f"CREATE TABLE {self.name}.{view}__g{generation} (n Int64) ENGINE = MergeTree ORDER BY n")
            self.show(view, 1)
        kept = [Kept(MIRROR, "Order", MIRROR, VIEWS, 3), Kept("sold", "Order", MIRROR, VIEWS, 3)]
        store.command(freshness_view(self.name, kept))

    def show(self, view: str, generation: int) -> None:
        """Let a view show a generation."""
        of = f"{self.name}.{view}"
        self._store.command(f"CREATE OR REPLACE VIEW {of} AS SELECT * FROM {of}__g{generation}")

    def write(self, generation: int, partition: int, first: int, last: int, epoch: int = 1) -> None:
        """Write a range down."""
        self._store.command(
            "INSERT INTO magnetar.pending (`projection`, generation, aggregate, partition, epoch, nonce, first, last) "
            f"VALUES ('mirror', {generation}, '{self.name}/Order', {partition}, {epoch}, 'n', {first}, {last})"
        )

    def tell(self, generation: int, partition: int, number: int) -> None:
        """Write down how far a generation is."""
        self._store.command(
            "INSERT INTO magnetar.progress (`projection`, generation, aggregate, partition, number) "
            f"VALUES ('mirror', {generation}, '{self.name}/Order', {partition}, {number})"
        )

    def position(self, partition: int, number: int) -> Position:
        """A position of theirs."""
        return Position.of(self.name, "Order", partition, number)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [json.loads(line) for line in self._store.read_only(sql, fmt="JSONEachRow").splitlines()]

    def number(self, partition: int) -> int:
        """How far the mirror is."""
        (found,) = standings(self.ask, self.position(partition, 1), MIRROR)
        return found.number


@pytest.fixture
def tables(store: Store) -> Tables:
    return Tables(store)


def test_what_is_below_the_pending_range_is_there_whoever_wrote_it(tables: Tables) -> None:
    assert [tables.number(partition) for partition in range(3)] == [0, 0, 0]
    tables.write(1, 0, 1, 5)
    assert tables.number(0) == 0
    tables.write(1, 0, 6, 9, epoch=2)
    tables.write(1, 0, 1, 5, epoch=3)  # a new owner that adopts an older range makes nothing undone
    assert [tables.number(partition) for partition in range(3)] == [5, 0, 0]
    tables.tell(1, 0, 9)
    assert tables.number(0) == 9
    tables.write(1, 0, 10, 12)
    assert tables.number(0) == 9


def test_the_generation_counts_that_the_views_show_and_between_them_the_one_that_is_behind(tables: Tables) -> None:
    tables.write(1, 1, 8, 7)
    tables.write(2, 1, 4, 3)
    assert tables.number(1) == 7
    tables.show(VIEWS[0], 2)
    assert tables.number(1) == 3
    tables.write(2, 1, 12, 11)
    assert tables.number(1) == 7
    tables.show(VIEWS[1], 2)
    assert tables.number(1) == 11


def test_who_is_furthest_behind_is_named_with_the_age_of_what_it_has(tables: Tables) -> None:
    tables.write(1, 0, 8, 7)
    assert behind(tables.ask, [tables.position(0, 7)]) is None
    assert behind_in(tables.ask, tables.name, tables.position(0, 7), "sold") is None
    late = behind_in(tables.ask, tables.name, tables.position(0, 8), "sold")
    assert late is not None
    assert late.what.startswith(f"sold has not come to {tables.name}/Order/0/8: it has the commits up to 7, as of ")
    assert late.fields["number"] == 7
    assert 0 <= float(str(late.fields["age_seconds"])) < 3600
    never = behind_in(tables.ask, tables.name, tables.position(2, 1), "sold")
    assert never is not None
    assert never.what.endswith("it has the commits up to 0.")


def test_a_projection_that_takes_no_commits_of_the_aggregate_is_never_behind(tables: Tables) -> None:
    assert behind_in(tables.ask, tables.name, tables.position(0, 7), "of_something_else") is None


@pytest.mark.parametrize(
    "text", ["NAME/Other/0/1", "NAME/Order/3/1", "nothing_there/Order/0/1", "no-name/Order/0/1", "x"]
)
def test_what_is_no_position_there_is_refused(tables: Tables, text: str) -> None:
    with pytest.raises(SettingsError, match="position"):
        behind(tables.ask, [Position(text.replace("NAME", tables.name))])


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(store: Store, tmp_path: Path) -> Iterator[Callable[..., httpx.Response]]:
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    endpoint = read_endpoint(tmp_path)
    assert isinstance(endpoint, Endpoint)

    def send(sql: str, **headers: str) -> httpx.Response:
        named = {f"X-Magnetar-{name}": value for name, value in headers.items()}
        return httpx.post(endpoint.url, content=sql, headers={"X-ClickHouse-Key": endpoint.token} | named, timeout=60)

    yield send
    front.close()


def test_a_header_makes_a_query_wait_until_the_tables_have_it(
    ask: Callable[..., httpx.Response], tables: Tables
) -> None:
    sql = f"SELECT max(number) FROM {tables.name}.freshness"
    tables.write(1, 0, 3, 2)
    assert ask(sql, After=tables.position(0, 2), Wait="0").text == "2\n"
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, sql, After=tables.position(0, 3), Wait="60") for _ in range(6)]
        assert ask("SELECT 1").text == "1\n"  # those that wait are in nobody's way
        tables.write(1, 0, 4, 3)
        assert [each.result().text for each in asked] == ["3\n"] * 6


def test_a_query_that_waited_in_vain_fails_or_says_how_stale_it_is(
    ask: Callable[..., httpx.Response], tables: Tables
) -> None:
    tables.write(1, 0, 3, 2)
    failed = ask("SELECT 1", After=f"{tables.position(0, 2)}, {tables.position(0, 9)}", Wait="0.1")
    assert (failed.status_code, failed.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
    assert f"has not come to {tables.name}/Order/0/9: it has the commits up to 2" in failed.text
    taken = ask("SELECT 1", After=tables.position(0, 9), Wait="0", Stale="1")
    assert (taken.text, json.loads(taken.headers["X-Magnetar-Stale"])["number"]) == ("1\n", 2)
    assert "X-Magnetar-Stale" not in ask("SELECT 1", After=tables.position(0, 2), Wait="0", Stale="1").headers


@pytest.mark.parametrize("headers", [{"After": "nonsense"}, {"After": "a/B/0/1"}, {"After": "", "Wait": "soon"}])
def test_headers_that_mean_nothing_are_refused(ask: Callable[..., httpx.Response], headers: dict[str, str]) -> None:
    response = ask("SELECT 1", **headers)
    assert (response.status_code, response.headers["X-ClickHouse-Exception-Code"]) == (400, "36")
