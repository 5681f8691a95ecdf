"""The asyncio client: thousands of asks at once, in any loop, given up and cut off."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from magnetar.pipelines import Client, CommandParked, Receipt, connection
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqlitePublisher
from magnetar.schemas import MessageRefused, OutcomeUnknown, SettingsError

from tests.unit.pipelines.purses import Door, Knock, Paid, Pay, Place, Purse, new_id

LONG = 120.0
"""Seconds that thousands of asks may take on a machine that is busy with something else."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data")


def with_client(place: Place, use: Callable[[Client], Awaitable[None]]) -> None:
    """Use a client in a loop of its own."""

    async def run() -> None:
        async with place.async_client() as client:
            if (preparing := client._connection.preparing(Purse, asking=True)) is not None:
                await asyncio.wrap_future(preparing)  # so that short limits are over for want of an answer alone
            await use(client)

    asyncio.run(run())


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for is not this loop's
            await asyncio.sleep(0.01)


def test_thousands_of_asks_at_once_are_each_answered_and_share_transactions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    publish = SqlitePublisher.publish

    def counted(self: SqlitePublisher, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        publish(self, partition, entries, timeout_seconds=timeout_seconds)
        written.append(len(entries))

    monkeypatch.setattr(SqlitePublisher, "publish", counted)

    async def use(client: Client) -> None:
        asks = (client.ask(Purse, f"p{n}", Pay(n), timeout_seconds=LONG) for n in range(20, 3020))
        receipts = await asyncio.gather(*asks)
        totals = [receipt.outcome.total for receipt in receipts if isinstance(receipt.outcome, Paid)]
        assert totals == list(range(20, 3020))

    with place.working():
        with_client(place, use)
    assert sum(written) == 3000
    assert len(written) < 1000


def test_commands_to_one_aggregate_are_decided_in_the_order_they_were_given(place: Place) -> None:
    async def use(client: Client) -> None:
        await client.ask(Purse, "a", Pay(0))
        receipts = await asyncio.gather(*(client.ask(Purse, "a", Pay(3)) for _ in range(200)))
        assert [receipt.version for receipt in receipts] == list(range(1, 201))

    with place.working():
        with_client(place, use)


def test_no_more_asks_are_under_way_than_there_is_room_for_replies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ASKS_MAX", 10)

    async def use(client: Client) -> None:
        asks = [asyncio.create_task(client.ask(Purse, f"p{n}", Pay(1), timeout_seconds=LONG)) for n in range(100)]
        await eventually(lambda: place.commands() == 10)
        given_up = asks[50:60]
        for ask in given_up:
            ask.cancel()
        await asyncio.wait(given_up)
        with place.working():
            receipts = await asyncio.gather(*asks[:50], *asks[60:])
        assert {receipt.version for receipt in receipts} == {1}

    with_client(place, use)
    assert len(place.commits()) == 90  # what was given up before its turn was never sent


def test_parked_unanswered_and_sent(place: Place) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(OutcomeUnknown, match="same command id is safe") as unknown:
            await client.ask(Purse, "z", Pay(1), timeout_seconds=0.1)
        with place.working():
            id = await client.send(Purse, "z", Pay(1))
            receipt = await client.ask(Purse, "z", Pay(1), command_id=id)
            assert receipt.version in (1, 2)
            with pytest.raises(CommandParked, match="unlucky"):
                await client.ask(Purse, "z", Pay(13))
            again = await client.ask(Purse, "z", Pay(1), command_id=str(unknown.value.fields["command_id"]))
            assert again.version in (1, 2)
            with pytest.raises(OutcomeUnknown, match="no answer came within 0 s"):
                await client.ask(Purse, "z", Pay(1), timeout_seconds=0)

    with_client(place, use)


def test_one_command_may_be_asked_twice_at_a_time(place: Place) -> None:
    async def use(client: Client) -> None:
        id = new_id()
        asks = [asyncio.create_task(client.ask(Purse, "a", Pay(5), command_id=id)) for _ in range(3)]
        await eventually(lambda: place.commands() == 3)
        with pytest.raises(MessageRefused, match="Another command is being asked under the id"):
            await client.ask(Purse, "b", Pay(5), command_id=id)
        with pytest.raises(MessageRefused, match="Another command is being asked under the id"):
            await client.ask(Door, "a", Knock(), command_id=id)
        with place.working():
            receipts = await asyncio.gather(*asks)
        assert len({repr(receipt) for receipt in receipts}) == 1

    with_client(place, use)
    assert len(place.commits()) == 1


def test_a_client_made_outside_of_a_loop_is_used_in_several_at_once(place: Place) -> None:
    client = place.async_client()
    receipts: list[Receipt[object]] = []

    async def ask(thread: int) -> None:
        receipts.extend(await asyncio.gather(*(client.ask(Purse, f"{thread}-{n}", Pay(1)) for n in range(20))))

    with place.working():
        threads = [threading.Thread(target=asyncio.run, args=(ask(thread),)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(ask(9))
    asyncio.run(client.close())
    assert [receipt.version for receipt in receipts] == [1] * 80


def test_asks_need_no_thread_of_the_loops_own(place: Place) -> None:
    async def use(client: Client) -> None:
        free = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            asyncio.get_running_loop().set_default_executor(executor)
            executor.submit(free.wait)
            try:
                receipts = await asyncio.gather(*(client.ask(Purse, f"p{n}", Pay(1)) for n in range(100)))
                await client.send(Purse, "a", Pay(1))
                await client.close()
            finally:
                free.set()
            assert len(receipts) == 100

    with place.working():
        client = place.async_client()
        asyncio.run(use(client))


def test_the_loop_is_not_held_up_by_a_partition_that_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, publish = threading.Event(), SqlitePublisher.publish

    def slow(self: SqlitePublisher, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        frozen.wait(60)
        publish(self, partition, entries, timeout_seconds=timeout_seconds)

    async def use(client: Client) -> None:
        await client.ask(Purse, "a", Pay(1))
        monkeypatch.setattr(SqlitePublisher, "publish", slow)
        asking = asyncio.create_task(client.ask(Purse, "a", Pay(1), timeout_seconds=LONG))
        longest, last = 0.0, time.monotonic()
        for _ in range(50):
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 30
        frozen.set()
        assert (await asking).version == 2

    with place.working():
        with_client(place, use)


def test_what_was_given_up_before_it_was_written_never_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, publish = threading.Event(), threading.Event(), SqlitePublisher.publish

    def slow(self: SqlitePublisher, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        begun.set()
        go_on.wait(60)
        publish(self, partition, entries, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(SqlitePublisher, "publish", slow)

    async def use(client: Client) -> None:
        first = asyncio.create_task(client.ask(Purse, "a", Pay(1), timeout_seconds=LONG))
        await eventually(begun.is_set)
        with pytest.raises(OutcomeUnknown):
            await client.ask(Purse, "a", Pay(1), timeout_seconds=0.1)
        go_on.set()
        await first
        assert (await client.ask(Purse, "a", Pay(1))).version == 2

    with place.working():
        with_client(place, use)
    assert place.commands() == 2


def test_a_callers_own_time_limit_is_the_callers(place: Place) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.ask(Purse, "a", Pay(1))
        asking = asyncio.create_task(client.ask(Purse, "a", Pay(1)))
        await eventually(lambda: place.commands() > 0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert client._connection._replies._asks == {}
        assert client._connection._under_way == 0

    with_client(place, use)


def test_closing_ends_asks_and_sends_under_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ASKS_MAX", 5)

    async def use(client: Client) -> None:
        asks = [asyncio.create_task(client.ask(Purse, f"p{n}", Pay(1))) for n in range(20)]
        await eventually(lambda: place.commands() == 5)
        await client.close()
        for ask in asks:
            with pytest.raises(OutcomeUnknown, match="the client was closed"):
                await ask
        with pytest.raises(SettingsError, match="The client is closed"):
            await client.ask(Purse, "a", Pay(1))
        with pytest.raises(SettingsError, match="The client is closed"):
            await client.send(Purse, "a", Pay(1))

    with_client(place, use)
    assert place.commands() == 5
