"""Workers and a projector on a real Pulsar, killed and frozen, and the broker too; an oracle knows what must stand.

`make chaos` does it twenty kills long. A run prints its random seed; MAGNETAR_CHAOS_SEED repeats it.
"""

import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from magnetar.pipelines.settings import Settings

from tests.chaos.on_pulsar import PulsarRun
from tests.chaos.processes import LONG, Part, parts
from tests.chaos.test_reading import check_that_all_is_seen
from tests.pulsar_rig import Standalone, data_folder, started

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
BLOWS = [
    *["kill"] * (20 if LONG else 3),
    *["kill the projector"] * (20 if LONG else 3),
    *["freeze"] * (3 if LONG else 1),
    *["kill the broker"] * (2 if LONG else 1),
]

ASKS = 200 if LONG else 45

AWAKENINGS = 5
"""A frozen worker need not have anything to answer when it wakes: so often it is tried."""

pytestmark = [pytest.mark.broker, pytest.mark.soak]


@pytest.fixture(scope="module")
def broker() -> Iterator[Standalone]:
    """A broker that may be killed, and that notices within seconds that a worker is frozen."""
    with data_folder() as folder, started(Standalone(folder, {"keepAliveIntervalSeconds": "5"})) as standalone:
        yield standalone


@pytest.fixture
def begun(tmp_path: Path, broker: Standalone) -> Iterator[PulsarRun]:
    """A run under way."""
    run = PulsarRun(tmp_path, broker, SEED)
    with parts(*run.parts):
        run.begin()
        yield run
    run.close()


def test_after_kills_and_freezes_of_workers_and_broker_log_answers_and_tables_agree(begun: PulsarRun) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    for kind in random.Random(SEED).sample(BLOWS, len(BLOWS)):
        begun.strike(kind)
    begun.finish()
    assert begun.judge() == []


def test_without_the_fence_a_frozen_workers_awakening_fails_that(tmp_path: Path, broker: Standalone) -> None:
    run = PulsarRun(tmp_path, broker, SEED, "--sabotage", "no_exclusive_producers")
    with parts(*run.parts):
        run.begin()
        assert any(run.freeze_and_wake() for _ in range(AWAKENINGS))
    run.close()


def test_what_was_asked_is_seen_whatever_is_killed_and_swapped(tmp_path: Path, broker: Standalone) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    tenant = broker.new_tenant()
    settings = Settings(data=tmp_path / "data", broker=broker.service_url, broker_admin=broker.admin_url, tenant=tenant)
    environment = broker.environment(tenant)
    worker, projector = (Part(tmp_path, role, settings=environment) for role in ("worker", "projector"))
    check_that_all_is_seen(settings, worker, projector, ASKS, SEED)
