"""Sending to a broker that is slow, frozen or dying: nothing is lost in silence, and no deadline is missed."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry, Log, Message
from magnetar.pipelines.logs import pulsar_send
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_plan import REPLIES_NAMESPACE
from magnetar.schemas import (
    LogUnavailable,
    MagnetarError,
    OutcomeUnknown,
    OwnershipLost,
    SettingsError,
    Topic,
    TopicKind,
)

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, WIDER, entries, numbers
from tests.pulsar_rig import Existing, Standalone, data_folder, started

SOON_SECONDS = 12.0
"""When a call that was given a second must have returned, on a busy machine: one that waits for the broker takes 15, or
for ever."""


def read(log: Log, topic: Topic, count: int) -> list[int]:
    """The numbers on partition 0: `count`, and what comes within half a second behind them."""
    reader, found = log.reader(topic, 0, after=None), list[Message]()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += reader.read(messages_max=5000, timeout_seconds=0.5)
    while messages := reader.read(messages_max=5000, timeout_seconds=0.5):
        found += messages
    reader.close()
    return numbers(found)


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call took."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_a_chunk_on_a_frozen_broker_is_unknown_at_its_deadline_and_stored_after_all(
    standalone: Standalone, open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    log, topic = open_log(), new_topic(TopicKind.EVENTS)
    appender = log.fence(topic, 0, schema=SCHEMA, name="worker")
    appender.append(entries(0), timeout_seconds=DEADLINE_SECONDS)

    def append() -> None:
        with pytest.raises(OutcomeUnknown):
            appender.append(entries(*range(1, 1001)), timeout_seconds=1.0)

    with standalone.frozen():
        assert seconds_of(append) < SOON_SECONDS
        assert seconds_of(appender.close) < SOON_SECONDS
    stored = read(log, topic, 2)
    assert stored == list(range(len(stored)))  # a whole beginning of the chunk: closing may have cut the rest off
    assert len(stored) > 1


def test_publishers_with_a_full_queue_on_a_frozen_broker_give_up_in_time_and_go_on_afterwards(
    standalone: Standalone, open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    log, topic = open_log(), new_topic(TopicKind.COMMANDS, partitions=2)
    publisher = log.publisher(topic, schema=SCHEMA)
    publisher.publish(0, entries(0), timeout_seconds=DEADLINE_SECONDS)

    def publish(partition: int) -> float:
        def call() -> None:
            with pytest.raises((OutcomeUnknown, LogUnavailable)):
                publisher.publish(partition, entries(*[1] * 4000), timeout_seconds=1.0)

        return seconds_of(call)

    with standalone.frozen(), ThreadPoolExecutor(8) as threads:
        assert max(threads.map(publish, [0] * 6 + [1])) < SOON_SECONDS
        assert publish(0) < SOON_SECONDS
    publisher.publish(0, entries(2), timeout_seconds=DEADLINE_SECONDS)
    publisher.publish(1, entries(3), timeout_seconds=DEADLINE_SECONDS)
    stored = read(log, topic, 8002)
    assert (stored[0], stored[-1]) == (0, 2)
    assert stored.count(1) == 8000  # two of the eight found room in the queue


def test_threads_that_share_a_publisher_each_keep_their_order(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    log, topic = open_log(), new_topic(TopicKind.COMMANDS)
    publisher = log.publisher(topic, schema=SCHEMA)

    def publish(thread: int) -> None:
        for start in range(0, 2000, 40):
            chunk = entries(*(thread * 10_000 + start + i for i in range(40)))
            publisher.publish(0, chunk, timeout_seconds=DEADLINE_SECONDS)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(publish, range(8)))
    stored = read(log, topic, 16_000)
    assert len(stored) == 16_000
    for thread in range(8):
        own = [number for number in stored if number // 10_000 == thread]
        assert own == list(range(thread * 10_000, thread * 10_000 + 2000))


@pytest.mark.parametrize("batching", [True, False])
def test_what_was_confirmed_before_and_while_the_broker_was_killed_is_there_once_and_in_order(
    standalone: Standalone, open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic], batching: bool
) -> None:
    log, topic = open_log(batching=batching), new_topic(TopicKind.EVENTS)
    appender = log.fence(topic, 0, schema=SCHEMA, name="worker")
    confirmed, restarted = [0], threading.Event()

    def append() -> None:
        while not restarted.is_set() or confirmed[0] < 2000:
            try:
                appender.append(entries(*range(confirmed[0], confirmed[0] + 100)), timeout_seconds=60.0)
            except OutcomeUnknown:
                return
            confirmed[0] += 100

    thread = threading.Thread(target=append)
    thread.start()
    while confirmed[0] < 1000:
        time.sleep(0.01)
    standalone.kill()
    standalone.start()
    restarted.set()
    thread.join(2 * DEADLINE_SECONDS)
    assert not thread.is_alive()
    stored = read(log, topic, confirmed[0])
    assert stored == list(range(len(stored)))
    assert len(stored) >= confirmed[0]


def test_a_frozen_broker_does_not_hold_up_who_replies(
    standalone: Standalone, open_log: Callable[..., PulsarLog]
) -> None:
    log = open_log()
    inbox = open_log().inbox()
    log.reply(inbox.address, [b"before"])
    replies = wait_for_replies(inbox.receive, 1)
    with standalone.frozen():
        for number in range(10):
            unknown = f"non-persistent://public/{REPLIES_NAMESPACE}/{number:032x}"
            assert seconds_of(lambda address=unknown: log.reply(address, [b"lost"])) < SOON_SECONDS  # type: ignore[misc]
    assert replies == [b"before"]


def test_bursts_of_replies_arrive_whole(open_log: Callable[..., PulsarLog]) -> None:
    """Unbatched, some of them would not: in 18 of 48 bursts, up to 1,528 replies were lost."""
    client, worker = open_log(), open_log()
    sent = [b"%d" % number for number in range(10_000)]
    for _ in range(12):
        inbox = client.inbox()
        worker.reply(inbox.address, sent)
        replies = wait_for_replies(inbox.receive, len(sent))
        assert len(replies) == len(sent)
        assert replies == sent
        inbox.close()


def wait_for_replies(receive: Callable[..., Sequence[bytes]], count: int) -> list[bytes]:
    """Receive until so many have come, or no more do."""
    replies: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(replies) < count and time.monotonic() < deadline:
        replies += receive(timeout_seconds=0.5)
    return replies


def test_a_schema_that_the_topic_does_not_take_is_refused(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    topic = new_topic(TopicKind.EVENTS)
    with pytest.raises(SettingsError, match="schema"):
        open_log().fence(topic, 0, schema=WIDER.replace("long", "string"), name="worker")


def test_a_chunk_that_is_fenced_under_way_is_lost_ownership_and_no_more_of_it_is_stored_later(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    """Unbatched, so that the fence comes in the middle."""
    old_log, topic = open_log(batching=False), new_topic(TopicKind.EVENTS)
    old = old_log.fence(topic, 0, schema=SCHEMA, name="old")
    failed, started = list[MagnetarError](), threading.Event()

    def stream() -> None:
        number = 1
        try:
            while True:
                old.append(entries(*range(number, number + 2000)), timeout_seconds=DEADLINE_SECONDS)
                number += 2000
                started.set()
        except MagnetarError as error:
            failed.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    assert started.wait(DEADLINE_SECONDS)
    new = open_log().fence(topic, 0, schema=SCHEMA, name="new")
    new.append(entries(0), timeout_seconds=DEADLINE_SECONDS)
    thread.join(2 * DEADLINE_SECONDS)
    assert [type(error) for error in failed] == [OwnershipLost]
    with pytest.raises(OwnershipLost):
        old.append(entries(-1), timeout_seconds=DEADLINE_SECONDS)
    old.close()
    stored = read(open_log(), topic, 2002)
    assert stored == [*range(1, len(stored)), 0]  # a whole beginning, and nothing behind the new one's


def test_a_topic_that_is_unloaded_under_a_stream_loses_nothing_and_stores_nothing_twice(
    broker: Existing, open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    """Unloading closes the connections' producers, as a broker does that hands a topic over to another."""
    log, topic = open_log(), new_topic(TopicKind.EVENTS)
    appender, confirmed = log.fence(topic, 0, schema=SCHEMA, name="worker"), 0
    url = f"{broker.admin_url}/admin/v2/persistent/public/{topic}-partition-0/unload"
    for _ in range(5):
        with ThreadPoolExecutor(1) as threads:
            unloading = threads.submit(httpx.put, url, timeout=DEADLINE_SECONDS)
            try:
                while not unloading.done():
                    chunk = entries(*range(confirmed, confirmed + 500))
                    appender.append(chunk, timeout_seconds=DEADLINE_SECONDS)
                    confirmed += 500
            except (OutcomeUnknown, OwnershipLost):  # what a worker does then: it fences, and reads what there is
                appender.close()
                appender = log.fence(topic, 0, schema=SCHEMA, name="worker")
                appender.append(entries(confirmed), timeout_seconds=DEADLINE_SECONDS)
                stored = read(log, topic, 1)
                assert stored[:confirmed] == list(range(confirmed))
                return
            assert unloading.result().is_success
    assert read(log, topic, confirmed) == list(range(confirmed))


ONE_IS_LARGE = [*entries(0), Entry("a", bytes(2**21)), *entries(1)]


@pytest.fixture(scope="module")
def narrow() -> Iterator[PulsarLog]:
    """On a broker that takes no message over 1 MiB."""
    with data_folder() as folder, started(Standalone(folder, {"maxMessageSize": str(2**20)})) as standalone:
        log = PulsarLog(standalone.service_url, standalone.admin_url, clock=SystemClock())
        yield log
        log.close()


def test_a_message_that_is_too_large_for_the_broker_alone_is_not_lost_among_others(narrow: PulsarLog) -> None:
    commands, events = (Topic("narrow", "Thing", kind) for kind in (TopicKind.COMMANDS, TopicKind.EVENTS))
    for topic in (commands, events):
        narrow.provision(topic, partitions=1, schema=SCHEMA)
    appender = narrow.fence(events, 0, schema=SCHEMA, name="worker")
    with pytest.raises(OutcomeUnknown, match="MessageTooBig"):
        appender.append(ONE_IS_LARGE, timeout_seconds=DEADLINE_SECONDS)
    publisher = narrow.publisher(commands, schema=SCHEMA)
    with pytest.raises(OutcomeUnknown, match="MessageTooBig"):
        publisher.publish(0, ONE_IS_LARGE, timeout_seconds=DEADLINE_SECONDS)
    publisher.publish(0, entries(2), timeout_seconds=DEADLINE_SECONDS)
    assert read(narrow, commands, 3) == [0, 1, 2]


def test_without_a_callback_of_its_own_it_would_be(narrow: PulsarLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulsar_send, "LARGE_BYTES_MIN", 2**30)
    topic = Topic("narrow", "Lost", TopicKind.COMMANDS)
    narrow.provision(topic, partitions=1, schema=SCHEMA)
    narrow.publisher(topic, schema=SCHEMA).publish(0, ONE_IS_LARGE, timeout_seconds=DEADLINE_SECONDS)
    assert read(narrow, topic, 2) == [0, 1]
