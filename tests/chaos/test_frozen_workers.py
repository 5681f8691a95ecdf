"""Workers frozen past a take-over and woken: no second history, and nobody is told what does not count."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from signal import SIGCONT

import pytest
from magnetar.pipelines.clock import SystemClock

from examples.flights.data import rows
from tests.chaos.comparing import false_replies, registry, stored, wrong_in_history
from tests.chaos.processes import Part, eventually, parts
from tests.chaos.sending import Asking

FROZEN_AT = ("after_receive", "at_claim", "after_decide", "after_send", "before_acknowledge")
FLIGHTS = 300

pytestmark = pytest.mark.xdist_group("frozen")


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """A client, and the folder of its log."""
    asking = Asking(tmp_path / "data")
    yield asking
    asking.close()


def frozen_past_a_take_over(asking: Asking, *arguments: str) -> list[str]:
    """1. A worker freezes at each place. 2. Another one takes over and decides all. 3. They wake, and all go on.

    Returns what is wrong with the log and with what the client was told.
    """
    folder, flights = asking.data.parent, rows(all_months=False)
    asking.send(islice(flights, FLIGHTS))
    frozen = [Part(folder, "worker", "--at", f"{at}:1:STOP", *arguments, name=f"frozen-{at}") for at in FROZEN_AT]
    healthy = Part(folder, "worker", *arguments, name="healthy")
    with parts(*frozen, healthy):
        for each in frozen:
            each.start()
        eventually(lambda: all(each.is_frozen() for each in frozen), "all are frozen", *frozen)
        healthy.start()
        eventually(asking.is_done, "another worker has taken over, and decided all", healthy)
        assert set(asking.owners().values()) == {"healthy"}
        woken_ms = SystemClock().now_ms()
        for each in frozen:
            each.send(SIGCONT)
        newer = f"SELECT count() FROM consumers WHERE name LIKE 'frozen-%' AND heartbeat_ms > {woken_ms}"
        eventually(lambda: registry(asking.data, newer)[0][0] == len(frozen), "all are awake", *frozen)
        asking.send(islice(flights, FLIGHTS))
        eventually(asking.is_done, "all is decided", *frozen, healthy)
    logs = stored(asking.data)
    return wrong_in_history(logs) + false_replies(asking.hear(), logs)


def test_workers_that_slept_through_a_take_over_neither_write_nor_answer(asking: Asking) -> None:
    assert frozen_past_a_take_over(asking) == []
    assert len(asking.replies) >= 2 * FLIGHTS


def test_without_the_fence_that_fails(asking: Asking) -> None:
    assert frozen_past_a_take_over(asking, "--sabotage", "no_fence")
