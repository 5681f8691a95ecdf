"""An ask that nobody decides: what is said of it, by both clients."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from magnetar.pipelines import Client, asking, lookback
from magnetar.pipelines.connection import connect
from magnetar.pipelines.outgoing import Details
from magnetar.pipelines.settings import Settings
from magnetar.schemas import OutcomeUnknown
from magnetar.schemas.routing import partition_of

from tests.unit.pipelines.counting_rig import Add, Added, Rig, Tally, tallies

NOBODY = "and no worker takes commands of Tally: it is decided as soon as one runs"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    yield rig
    rig.close()


def test_an_ask_that_ran_out_of_time_says_that_no_worker_runs(rig: Rig) -> None:
    rig.worker.close()
    with pytest.raises(OutcomeUnknown, match=NOBODY) as caught:
        rig.client.ask(Tally, "a", Add(5), timeout_seconds=0.5)
    again = Rig(rig.folder)
    again.work()
    (step,) = lookback.steps(tallies, again.log, "Tally", "a")
    assert (step.commit.command_id, step.commit.outcome) == (caught.value.fields["command_id"], "accepted")
    again.close()


def test_an_ask_on_a_partition_that_the_worker_refused_says_so(rig: Rig) -> None:
    rig.worker.step(timeout_seconds=0.05)
    rig.worker._consumer.leave(partition_of("a", tallies.partitions))
    with pytest.raises(OutcomeUnknown, match="while others are taken: a worker has refused it"):
        rig.client.ask(Tally, "a", Add(5), timeout_seconds=0.5)


def test_the_other_client_says_so_too(rig: Rig) -> None:
    rig.worker.close()

    async def ask() -> None:
        async with Client(tallies, settings=Settings(data=rig.folder)) as client:
            await client.ask(Tally, "a", Add(5), timeout_seconds=0.5)

    with pytest.raises(OutcomeUnknown, match=NOBODY):
        asyncio.run(ask())


def test_it_is_not_said_while_a_worker_is_there(rig: Rig) -> None:
    rig.worker.step(timeout_seconds=0.05)
    with pytest.raises(OutcomeUnknown) as caught:
        rig.client.ask(Tally, "a", Add(5), timeout_seconds=0.5)
    assert "no worker" not in caught.value.what
    assert "no answer came within 0.5 s" in caught.value.what


def test_whoever_waits_is_told_soon_and_still_gets_the_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the worker begins when the note is given."""
    monkeypatch.setattr(asking, "SOON_SECONDS", 0.5)
    rig.worker.close()
    later, said = list[Rig](), list[str]()

    def say(text: str) -> None:
        said.append(text)
        later.append(Rig(rig.folder))
        later[0].work()

    connection = connect(tallies, Settings(data=rig.folder))
    try:
        receipt = asking.ask(connection, Tally, "a", Add(5), Details(), timeout_seconds=60, say=say)
    finally:
        connection.close()
        later[0].close()
    assert receipt.outcome == Added(5)
    assert len(said) == 1
    assert said[0].startswith("no worker takes commands of Tally yet. The command ")
