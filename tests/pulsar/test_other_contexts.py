"""Rows over another context's events on a real Pulsar: what is planned for them, and what is in the table."""

from collections.abc import Callable
from pathlib import Path

import pytest
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines import feeding as module
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.provisioning import Sign, apply, plan
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.freshness import behind_in
from magnetar.projections.store import Store, embedded_dsn

from tests.chaos.processes import eventually
from tests.pulsar.yard import LONG, Yard, working
from tests.pulsar_rig import Existing
from tests.unit.pipelines.foreign import Account, Bill, Statement
from tests.unit.pipelines.purses import Door, Pay, Purse


def reading(other: Pipeline, name: str = "") -> Pipeline:
    """A context of its own that reads this one."""
    return Pipeline(
        name or f"b{other.name}", aggregates=[Account], projections=[Statement], partitions=3, reads=[other]
    )


def test_the_plan_gives_the_right_to_read_and_makes_nothing_of_the_other_context(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    yard = Yard(broker, open_log)
    billing, settings = reading(yard.pipeline), yard.settings.model_copy(update={"projector_role": "{context}-mirror"})
    topic = f"topic public/{yard.pipeline.name}/purse-events"
    steps = [step for step in plan(billing, yard.log, settings) if yard.pipeline.name in step.subject.split("/")]
    assert [(step.sign, step.subject, step.detail) for step in steps] == [
        (Sign.CREATE, topic, f"role {billing.name}-mirror may consume")
    ]
    apply(plan(billing, yard.log, settings))
    assert plan(billing, yard.log, settings) == []

    absent = Pipeline(f"n{yard.pipeline.name}", aggregates=[Purse, Door], partitions=2)
    (step,) = [step for step in plan(reading(absent), yard.log, settings) if step.sign is Sign.KEEP]
    assert (step.subject, step.detail.partition(";")[0]) == (
        f"topic public/{absent.name}/purse-events",
        "not there yet",
    )
    declared = Pipeline(yard.pipeline.name, aggregates=[Purse, Door], partitions=5)
    (step,) = [step for step in plan(reading(declared), yard.log, settings) if step.sign is Sign.REFUSED]
    assert "it has 2 partitions, and the pipeline declares 5" in step.detail


def test_rows_have_the_events_of_both_contexts_before_and_behind_a_rebuild(
    broker: Existing, open_log: Callable[..., PulsarLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    there = Yard(broker, open_log)
    later = Pipeline(f"l{there.pipeline.name}", aggregates=[Purse, Door], partitions=2)
    billing = reading(later)
    provision(billing, there.log)
    store = Store(embedded_dsn(tmp_path))
    projector = Projector(billing, open_log(), store, Settings(data=tmp_path), clock=SystemClock())

    def rows() -> list[tuple[str, str, int]]:
        sql = f"SELECT _aggregate, what, total FROM {billing.name}.statement ORDER BY ALL"
        return [(aggregate, what, total) for aggregate, what, total in store.query(sql)]

    with working(billing, open_log(), SystemClock()), SyncClient(billing, settings=there.settings) as own:
        own.ask(Account, "a", Bill(7), timeout_seconds=LONG)
        projector.prepare()
        projector.open()
        eventually(lambda: projector.step() >= 0 and rows() == [("Purse", "billed", 7)], "its own")
        assert set(projector.lost) == {f"{later.name}/Purse/{partition}" for partition in range(2)}

        provision(later, there.log)
        with working(later, open_log(), SystemClock()), SyncClient(later, settings=there.settings) as other:
            receipts = [other.ask(Purse, id, Pay(1), timeout_seconds=LONG) for id in (*there.ids, there.ids[0])]
            expected = [
                ("Purse", "billed", 7),
                *((f"{later.name}/Purse", "paid", total) for total in (1, 1, 2)),
            ]
            eventually(lambda: projector.step() >= 0 and rows() == sorted(expected), "those of the other")
            eventually(
                lambda: (
                    projector.step() == 0
                    and not any(behind_in(store.rows, billing.name, each.position, "statement") for each in receipts)
                ),
                "all is told",
            )
            projector.wish(Wish.REBUILD, ["Statement"])
            expected.append((f"{later.name}/Purse", "paid", 3))
            other.ask(Purse, there.ids[0], Pay(1), timeout_seconds=LONG)
            eventually(
                lambda: (
                    projector.step() >= 0
                    and rows() == sorted(expected)
                    and store.query(f"SELECT DISTINCT generation FROM {billing.name}.freshness ORDER BY 1")
                    == [(1,), (2,)]
                ),
                "the rebuilt one is shown",
            )
    projector.close()
    store.close()
