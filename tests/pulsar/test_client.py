"""The clients on a real Pulsar: the same answers as on the embedded log."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
from magnetar.pipelines import Client, CommandParked, Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.schemas import OutcomeUnknown, SettingsError

from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Broke, Door, Knock, Paid, Pay, Purse, new_id

LONG = 240.0


@contextmanager
def working(pipeline: Pipeline, log: PulsarLog) -> Generator[None]:
    """A worker for both aggregates on a thread."""
    stop, clock = threading.Event(), SystemClock()
    workers = workers_of(pipeline, log, name="w", clock=clock)
    thread = threading.Thread(target=decide_until, args=(stop.is_set, workers, clock))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for worker in workers:
            worker.close()


def test_asks_are_answered_repeated_many_at_once_and_ended(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse, Door], partitions=2)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    provision(pipeline, open_log())
    id = new_id()

    async def many() -> None:
        async with Client(pipeline, settings=settings) as client:
            with pytest.raises(OutcomeUnknown, match="same command id is safe"):
                await client.ask(Purse, "a", Pay(5), command_id=id, timeout_seconds=1)
            with working(pipeline, open_log()):
                again = await client.ask(Purse, "a", Pay(5), command_id=id, timeout_seconds=LONG)
                assert (again.outcome, again.version) == (Paid(5, None, id), 1)
                asks = (client.ask(Purse, f"p{n}", Pay(n), timeout_seconds=LONG) for n in range(20, 2020))
                outcomes = [receipt.outcome for receipt in await asyncio.gather(*asks)]
                assert [outcome.total for outcome in outcomes if isinstance(outcome, Paid)] == list(range(20, 2020))
                with SyncClient(pipeline, settings=settings) as another:
                    assert another.ask(Purse, "a", Pay(10_001), timeout_seconds=LONG).outcome == Broke(10_000)
                    assert another.ask(Door, "a", Knock(), timeout_seconds=LONG).version == 1
                    with pytest.raises(CommandParked, match="unlucky"):
                        another.ask(Purse, "a", Pay(13), timeout_seconds=LONG)
            unanswered = asyncio.create_task(client.ask(Purse, "a", Pay(1)))
            while not client._connection._replies._asks:  # noqa: ASYNC110 - other threads work on it
                await asyncio.sleep(0.01)
            await client.close()
            with pytest.raises(OutcomeUnknown, match="the client was closed"):
                await unanswered
            with pytest.raises(SettingsError, match="The client is closed"):
                await client.ask(Purse, "a", Pay(1))

    asyncio.run(many())
