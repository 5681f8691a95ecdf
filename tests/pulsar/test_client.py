"""The clients on a real Pulsar: the same answers as on the embedded log."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from magnetar.pipelines import Client, CommandParked, Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.log import Message
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.schemas import OutcomeUnknown, SettingsError, TopicKind, partition_of

from tests.chaos.processes import eventually
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Broke, Door, Knock, Paid, Pay, Purse, new_id

LONG = 240.0


@contextmanager
def working(pipeline: Pipeline, log: PulsarLog, failpoint: Callable[[str], None] | None = None) -> Generator[None]:
    """A worker for each aggregate on a thread."""
    stop, clock = threading.Event(), SystemClock()
    workers = workers_of(pipeline, log, name="w", clock=clock, failpoint=failpoint)
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


def test_a_reply_that_is_lost_while_the_client_is_cut_off_is_asked_for_again(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    """The client's inbox goes just when the answer comes. It is back a moment later, without what was in it."""
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=2)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    provision(pipeline, open_log())
    lost = list[str]()

    def lose(place: str) -> None:
        if place == "before_reply" and not lost:
            lost.append(address)
            inbox = address.removeprefix("non-persistent://")
            httpx.put(f"{broker.admin_url}/admin/v2/non-persistent/{inbox}/unload", timeout=LONG).raise_for_status()

    with SyncClient(pipeline, settings=settings) as client:
        address = client._connection._replies.address()
        with working(pipeline, open_log(), lose):
            assert client.ask(Purse, "a", Pay(5), timeout_seconds=LONG).version == 1
            assert lost
            assert client.ask(Purse, "a", Pay(5), timeout_seconds=LONG).version == 2
    assert len(commands_of(pipeline, open_log())) == 3


def test_a_command_that_waits_for_a_worker_is_not_sent_again(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=2)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    provision(pipeline, open_log())
    with SyncClient(pipeline, settings=settings) as client, ThreadPoolExecutor() as threads:
        asked = threads.submit(client.ask, Purse, "a", Pay(5), timeout_seconds=LONG)
        asks = client._connection._replies._asks
        eventually(
            lambda: any(ask.end for several in list(asks.values()) for ask in several),
            "the client has looked once",
            seconds=LONG,
        )
        with working(pipeline, open_log()):
            assert asked.result(LONG).version == 1
    assert len(commands_of(pipeline, open_log())) == 1


def commands_of(pipeline: Pipeline, log: PulsarLog) -> list[Message]:
    """The commands to purse "a", and all others on its partition, as often as they were sent."""
    topic, partition = pipeline.topic("Purse", TopicKind.COMMANDS), partition_of("a", pipeline.partitions)
    end, reader, found = log.end(topic, partition), log.reader(topic, partition, after=None), list[Message]()
    assert end is not None
    while not found or found[-1].id < end:
        found += reader.read(messages_max=10, timeout_seconds=LONG)
    return found
