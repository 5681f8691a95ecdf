"""Three workers and a mirror on a real Pulsar, killed and frozen, and the broker too; an oracle knows what must stand.

`make chaos` does it twenty kills long. A run prints its random seed; MAGNETAR_CHAOS_SEED repeats it.
"""

import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.comparing import stored_in
from tests.chaos.on_pulsar import PulsarRun, wrong_in_journal
from tests.chaos.processes import parts
from tests.pulsar_rig import Standalone, data_folder

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
LONG = "MAGNETAR_TEST_SOAK" in os.environ
BLOWS = [*["kill"] * (20 if LONG else 3), *["freeze"] * (3 if LONG else 1), *["kill the broker"] * (2 if LONG else 1)]

if "CHAOS_DEBUG" in os.environ:
    BLOWS = ["kill"] * 10 + ["freeze"] * 5

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def broker() -> Iterator[Standalone]:
    """A broker that may be killed, and that notices within seconds that a worker is frozen."""
    with data_folder() as folder:
        standalone = Standalone(folder, {"keepAliveIntervalSeconds": "5"})
        try:
            standalone.start()
            yield standalone
        finally:
            standalone.stop()


@pytest.fixture
def begun(tmp_path: Path, broker: Standalone) -> Iterator[PulsarRun]:
    """A run under way."""
    run = PulsarRun(tmp_path, broker, SEED)
    with parts(*run.parts):
        run.begin()
        yield run
    run.close()


def test_after_kills_and_freezes_of_workers_and_broker_log_answers_and_mirror_agree(begun: PulsarRun) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    for kind in random.Random(SEED).sample(BLOWS, len(BLOWS)):
        begun.strike(kind)
    begun.finish()
    wrong = begun.judge()
    if wrong:
        import pickle

        logs = stored_in(begun.log)
        pickle.dump([[tuple(map(list, each))] for each in logs], open("/tmp/chaos-logs.pickle", "wb"))
        pickle.dump(begun.told(), open("/tmp/chaos-told.pickle", "wb"))
        pickle.dump(begun.blows, open("/tmp/chaos-blows.pickle", "wb"))
        import shutil

        for part in begun.parts:
            shutil.copy(part._file, "/tmp/chaos-" + part.name + ".log")
    assert wrong == []
