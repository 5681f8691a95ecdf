"""Reading a Pulsar partition: how much comes at once."""

from collections.abc import Callable

import pytest
from magnetar.pipelines.log import Run
from magnetar.pipelines.logs import pulsar_messages
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import Topic, TopicKind

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries


@pytest.fixture
def events(open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]) -> Topic:
    """A topic with forty messages of one byte or two."""
    topic = new_topic(TopicKind.EVENTS)
    appender = open_log().fence(topic, 0, schema=SCHEMA, name="w")
    appender.append(entries(*range(40)), timeout_seconds=DEADLINE_SECONDS)
    return topic


def test_a_read_brings_no_more_bytes_into_memory_than_it_may(
    open_log: Callable[..., PulsarLog], events: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulsar_messages, "READ_BYTES_MAX", 10)
    reader = open_log().reader(events, 0, after=None)
    run = reader.read_run(messages_max=100, timeout_seconds=DEADLINE_SECONDS)
    assert run is not None
    assert 0 < sum(map(len, run.payloads)) <= 11
    messages = reader.read(messages_max=100, timeout_seconds=DEADLINE_SECONDS)
    assert 0 < sum(len(message.payload) for message in messages) <= 11
    read = [*run.payloads, *(message.payload for message in messages)]
    assert read == [entry.payload for entry in entries(*range(40))][: len(read)]


def test_runs_and_messages_can_be_read_in_turn(open_log: Callable[..., PulsarLog], events: Topic) -> None:
    reader = open_log().reader(events, 0, after=None)
    read: list[bytes] = []
    while len(read) < 40:
        run: Run | None = reader.read_run(messages_max=3, timeout_seconds=DEADLINE_SECONDS)
        assert run is not None
        read += run.payloads
        read += [message.payload for message in reader.read(messages_max=3, timeout_seconds=0.1)]
    assert read == [entry.payload for entry in entries(*range(40))]
