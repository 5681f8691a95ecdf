"""Rows over another context's events, filled. test_several.py runs this in a process of its own: it has one engine."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines import feeding as module
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.raw_query import answer_after
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.standing import projections_of
from magnetar.pipelines.status import StatusReader
from magnetar.projections.query import QueryFormat
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import Position, SettingsError, TablesBehind

from tests.unit.pipelines.foreign import (
    WRONG,
    Account,
    Bill,
    Payments,
    Standing,
    Statement,
    Times,
    billing,
    purses,
)
from tests.unit.pipelines.live import Live
from tests.unit.pipelines.purses import Door, Paid, Pay, Purse


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    WRONG.clear()
    live = Live(tmp_path / "data", purses, billing)
    with live.working(purses, billing):
        yield live
    live.log.close()


def in_the_table(live: Live) -> list[tuple[object, ...]]:
    sql = "SELECT _aggregate AS a, _id, toInt32(_version) AS v, what, total FROM billing.statement"
    return sorted((row["a"], row["_id"], row["v"], row["what"], int(row["total"])) for row in live.rows(sql))


def in_the_logs(live: Live) -> list[tuple[object, ...]]:
    """What the table is to have, made of the logs of both contexts without it."""
    there = [
        ("purses/Purse", id, version, "paid", event.total)
        for id, version, event in live.facts(purses, "Purse")
        if isinstance(event, Paid)
    ]
    here = [("Purse", id, version, "billed", event.amount) for id, version, event in live.facts(billing, "Purse")]
    return sorted([*there, *here])


def test_the_table_has_the_events_of_both_contexts_also_while_it_is_rebuilt_and_behind_a_restart(live: Live) -> None:
    going, sent = threading.Event(), itertools.count()

    def send() -> None:
        with live.client(purses) as other, live.client(billing) as own:
            while not going.is_set():
                n = next(sent)
                other.ask(Purse, f"id{n % 7}", Pay(2 if n % 3 else 1))
                own.ask(Account, f"id{n % 5}", Bill(n))

    sender = threading.Thread(target=send)
    with live.projecting(billing):
        sender.start()
        live.eventually(lambda: len(in_the_table(live)) > 20)
    with live.projecting(billing):
        live.rebuild(billing, "Statement", "Standing", "Times")
        live.rebuild(purses, "Purse")  # of the other context, by the same process
        going.set()
        sender.join()
        live.eventually(lambda: in_the_table(live) == in_the_logs(live))
        generations = live.rows("SELECT DISTINCT generation AS g FROM billing.freshness WHERE aggregate != 'Purse'")
        assert generations == [{"g": 2}]
        paid = [(id, event) for id, _, event in live.facts(purses, "Purse") if isinstance(event, Paid)]
        last = {id: event.total for id, event in paid}
        live.eventually(
            lambda: {r["_id"]: int(r["total"]) for r in live.rows("SELECT _id, total FROM billing.standing")} == last
        )
        often = Counter(event.total for _, event in paid)
        rows = live.rows("SELECT total, times FROM billing.times")
        assert {int(row["total"]): int(row["times"]) for row in rows} == often


def test_what_was_written_in_either_context_is_seen(live: Live) -> None:
    with live.projecting(billing), live.client(purses) as other, live.client(billing) as own:
        for n in range(1, 9):
            paid, billed = other.ask(Purse, "a", Pay(1)), own.ask(Account, "a", Bill(n))
            assert len(own.query(Statement, "what = 'paid'", after=paid)) == n
            assert own.get(Standing, "a", after=paid) == Standing(n)
            assert own.query(Payments, after=paid) == (Payments(n),)
            assert len(own.query(Times, after=[paid])) == n
            assert len(own.query(Statement, after=[paid, billed])) == 2 * n


def test_the_same_over_http_and_on_the_command_line(live: Live) -> None:
    sql = "SELECT count() AS n FROM billing.statement FORMAT TSV"
    with live.projecting(billing), live.client(purses) as other:
        for n in range(1, 15):
            position = other.ask(Purse, "a", Pay(1)).position
            if n % 2:
                headers = {"X-ClickHouse-Key": live.endpoint.token, "X-Magnetar-After": position}
                answer = httpx.post(live.endpoint.url, content=sql, headers=headers).content
            else:
                answer, _ = answer_after(
                    live.settings.data, sql, QueryFormat.CSV, [position], wait_seconds=30, stale=False
                )
            assert answer.strip() == str(n).encode()
        late = Position("purses/Purse/1/99")
        with pytest.raises(TablesBehind, match=r"billing\.\w+ has not come to purses/Purse/1/99"):
            answer_after(live.settings.data, sql, QueryFormat.CSV, [late], wait_seconds=0, stale=False)


def test_what_a_table_does_not_take_is_not_waited_for_and_what_is_not_read_is_refused(live: Live) -> None:
    with live.projecting(billing), live.client(billing) as own:
        assert own.query(Statement, after=Position("purses/Door/0/99"), wait_seconds=0) == ()
        for position in ("shop/Purse/0/1", "purses/Nothing/0/1"):
            with pytest.raises(SettingsError, match="of another pipeline than 'billing', and of none that it reads"):
                own.query(Statement, after=Position(position))
        with pytest.raises(TablesBehind, match="statement has not come to purses/Purse/0/99") as caught:
            own.query(Statement, after=Position("purses/Purse/0/99"), wait_seconds=0)
        assert caught.value.fields["number"] == 0


def test_a_key_of_the_other_context_is_kept_back_and_that_of_the_same_name_goes_on(live: Live) -> None:
    WRONG.add(12)
    with live.projecting(billing), live.client(purses) as other, live.client(billing) as own:
        paid = [other.ask(Purse, "a", Pay(amount)) for amount in (11, 1, 3)]
        billed = own.ask(Account, "a", Bill(1))
        assert len(own.query(Statement, "what = 'billed'", after=billed)) == 1
        with pytest.raises(TablesBehind, match="One before it was raised on"):
            own.query(Statement, after=paid[-1], wait_seconds=1)
        (key,) = live.quarantined(billing)
        assert (key.projection, key.aggregate, key.id, key.version) == ("Statement", "purses/Purse", "a", 2)
        assert live.quarantined(purses) == []
        WRONG.clear()
        assert live.retry(billing) == []
        assert in_the_table(live) == in_the_logs(live)


def test_the_status_says_how_far_it_is_behind_the_other_context(live: Live) -> None:
    with live.client(purses) as other, live.projecting(billing), live.client(billing) as own:
        own.query(Statement, after=other.ask(Purse, "a", Pay(1)))
        rows, ask = live.rows("SELECT * FROM billing.freshness"), live.rows
        reader = StatusReader(billing, live.log, SystemClock(), ask)
        assert sum(reader.read_from_others().values()) == 1
        for _ in range(3):
            other.ask(Purse, "a", Pay(1))
        live.eventually(lambda: sum(reader.read_from_others().values()) == 4)
        found = {
            (each.projection, each.aggregate): each
            for each in projections_of(ask, "billing", reader.read(), {("purses/Purse", 0): 50})
        }
        assert found["statement", "purses/Purse"].behind >= 46
        assert {row["aggregate"] for row in rows} == {"Purse", "purses/Purse"}


def drained(projector: Projector) -> None:
    for _ in range(10):
        projector.step()


def test_a_context_that_is_not_there_yet_is_waited_for_and_the_rest_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    live = Live(tmp_path / "data", billing)
    with live.working(billing), live.client(billing) as own:
        own.ask(Account, "a", Bill(1))
    store = Store(embedded_dsn(live.settings.data))
    without = Pipeline(
        "billing", aggregates=[Account], projections=[Statement], partitions=3, reads=[purses]
    )  # a query over views that are not there is refused, as ever
    projector = Projector(without, live.log, store, live.settings, clock=SystemClock())
    projector.prepare()
    projector.open()
    drained(projector)
    assert store.query("SELECT what FROM billing.statement") == [("billed",)]
    assert set(projector.lost) == {"purses/Purse/0", "purses/Purse/1"}
    provision(purses, live.log)
    with live.working(purses), live.client(purses) as other:
        other.ask(Purse, "a", Pay(1))
    drained(projector)
    assert store.query("SELECT what FROM billing.statement ORDER BY what") == [("billed",), ("paid",)]
    projector.close()
    store.close()
    live.log.close()


def test_another_number_of_partitions_than_is_declared_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    live = Live(tmp_path / "data", billing, purses)
    store = Store(embedded_dsn(live.settings.data))
    declared = Pipeline("purses", aggregates=[Purse, Door], partitions=1)
    wrong = Pipeline("billing", aggregates=[Account], projections=[Statement], partitions=3, reads=[declared])
    projector = Projector(wrong, live.log, store, live.settings, clock=SystemClock())
    projector.prepare()
    projector.open()
    drained(projector)
    assert projector.lost == ["purses/Purse/0"]
    projector.close()
    store.close()
    live.log.close()


def test_embedded_runs_what_is_read_along() -> None:
    with billing.embedded() as running, SyncClient(purses) as other:
        receipt = other.ask(Purse, "a", Pay(4))
        running.client.ask(Account, "a", Bill(2))
        assert running.client.query(Statement, "what = 'paid'", after=receipt) == (Statement("paid", 4),)
        assert running.query("SELECT payments FROM billing.payments") == [{"payments": 1}]
        with pytest.raises(SettingsError, match="'purses' runs embedded already"), purses.embedded():
            pass
    assert purses.running is None
    with purses.embedded() as running, pytest.raises(SettingsError, match="'purses' runs embedded already"):
        billing.embedded().__enter__()
