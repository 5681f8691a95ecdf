"""Rows over two aggregates, filled. test_several.py runs this in a process of its own: it has one engine."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.projector import Projector
from magnetar.projections import Rows
from magnetar.projections.quarantine import quarantined
from magnetar.schemas import Meta, TablesBehind

from tests.unit.pipelines.live import Live
from tests.unit.pipelines.purses import Door, Knock, Knocked, Paid, Pay, Purse, Twice

WRONG: set[int] = set()
"""The totals that the projection raises on; a test mends it by taking them out."""


class Journal(Rows):
    """What happens to purses and doors."""

    what: str
    of: str
    total: int | None

    @classmethod
    def project(cls, event: Paid | Twice | Knocked, meta: Meta) -> Iterator[Self]:
        match event:
            case Paid(total=total):
                if total in WRONG:
                    raise ValueError(f"{total} is wrong")
                yield cls("paid", meta.id, total)
            case Twice():
                yield cls("twice", meta.id, None)
            case Knocked():
                yield cls("knocked", meta.id, None)


both = Pipeline("purses", aggregates=[Purse, Door], projections=[Journal], partitions=2)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    WRONG.clear()
    live = Live(tmp_path / "data", both)
    with live.working(both):
        yield live
    live.log.close()


def in_the_table(live: Live) -> list[tuple[object, ...]]:
    sql = "SELECT _aggregate AS a, _id, toInt32(_version) AS v, what, of, total FROM purses.journal"
    return sorted(((r["a"], r["_id"], r["v"], r["what"], r["of"]) for r in live.rows(sql)), key=repr)


def in_the_log(live: Live) -> list[tuple[object, ...]]:
    """What the table is to have, made of the log without it."""
    return sorted(
        (
            (aggregate, id, version, type(event).__name__.lower(), id)
            for aggregate in both.aggregates
            for id, version, event in live.facts(both, aggregate)
        ),
        key=repr,
    )


def test_the_table_has_every_event_of_both_also_while_it_is_rebuilt(live: Live) -> None:
    going, sent = threading.Event(), itertools.count()

    def send() -> None:
        with live.client(both) as client:
            while not going.is_set():
                n = next(sent)
                client.ask(Purse, f"id{n % 7}", Pay(2 if n % 3 else 1))
                client.ask(Door, f"id{n % 5}", Knock())

    sender = threading.Thread(target=send)
    with live.projecting(both):
        sender.start()
        live.eventually(lambda: len(in_the_table(live)) > 50)
        for _ in range(2):
            live.rebuild(both, "Journal")
        going.set()
        sender.join()
        live.eventually(lambda: in_the_table(live) == in_the_log(live))
        generations = live.rows("SELECT DISTINCT generation AS g FROM purses.freshness WHERE projection = 'journal'")
        assert generations == [{"g": 3}]
        assert next(sent) > 10


def test_what_was_asked_of_either_aggregate_is_seen(live: Live) -> None:
    with live.projecting(both), live.client(both) as client:
        for n in range(1, 16):
            paid, knocked = client.ask(Purse, "a", Pay(1)), client.ask(Door, "a", Knock())
            if n % 2:
                assert len(client.query(Journal, "what = 'paid'", after=paid)) == n
                assert len(client.query(Journal, "what = 'knocked'", after=knocked)) == n
            else:
                assert len(client.query(Journal, after=[paid, knocked])) == 2 * n


def test_a_key_of_one_aggregate_is_kept_back_and_that_of_the_same_name_goes_on(live: Live) -> None:
    WRONG.add(12)
    with live.projecting(both), live.client(both) as client:
        receipts = [client.ask(Purse, "a", Pay(amount)) for amount in (11, 1, 3)]
        knocked = [client.ask(Door, "a", Knock()) for _ in range(2)][-1]
        assert len(client.query(Journal, "what = 'knocked'", after=knocked)) == 2
        with pytest.raises(TablesBehind, match="One before it was raised on"):
            client.query(Journal, after=receipts[-1], wait_seconds=1)
        (key,) = live.quarantined(both)
        assert (key.aggregate, key.id, key.version, key.events) == ("Purse", "a", 2, 2)
        assert live.retry(both) == ["ValueError: 12 is wrong"]
        WRONG.clear()
        assert live.retry(both) == []
        found = client.query(Journal, "what = 'paid'", order_by="_version", after=receipts[-1])
        assert [row.total for row in found] == [11, 12, 15]
        assert in_the_table(live) == in_the_log(live)


def test_what_is_let_in_while_new_tables_are_filled_is_in_them_when_they_are_shown(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_swap, swap = threading.Event(), Projector._swap_if_caught_up
    monkeypatch.setattr(Projector, "_swap_if_caught_up", lambda *arguments: may_swap.is_set() and swap(*arguments))
    WRONG.add(12)
    with live.projecting(both), live.client(both) as client, ThreadPoolExecutor(1) as threads:
        receipts = [client.ask(Purse, "a", Pay(amount)) for amount in (11, 1, 3)]
        live.eventually(lambda: len(live.quarantined(both)) == 1)
        rebuilding = threads.submit(live.rebuild, both, "Journal")
        live.eventually(lambda: {key.generation for key in quarantined(live.rows, both.name)} == {1, 2})
        WRONG.clear()
        assert live.retry(both) == []
        may_swap.set()
        rebuilding.result()
        found = client.query(Journal, "what = 'paid'", order_by="_version", after=receipts[-1])
        assert [row.total for row in found] == [11, 12, 15]
