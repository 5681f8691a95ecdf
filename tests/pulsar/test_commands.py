"""Acknowledging within a batch: what the broker stores as one must not be acknowledged as one."""

from collections.abc import Callable

import pytest
from magnetar.pipelines.log import Consumer, Message
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import Topic, TopicKind

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries, numbers


def receive(consumer: Consumer, count: int, *, messages_max: int) -> list[Message]:
    """Receive until so many messages have come."""
    found: list[Message] = []
    while len(found) < count:
        batch = consumer.receive(messages_max=messages_max, timeout_seconds=DEADLINE_SECONDS)
        assert batch is not None
        found += batch.messages
    return found


@pytest.mark.parametrize("handed_on", ["to another consumer", "to the same, by release"])
def test_what_stands_behind_an_acknowledged_message_in_its_batch_is_given_again(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic], handed_on: str
) -> None:
    log, topic = open_log(), new_topic(TopicKind.COMMANDS)
    log.publisher(topic, schema=SCHEMA).publish(0, entries(*range(10)), timeout_seconds=DEADLINE_SECONDS)
    consumer = log.consumer(topic, name="a")
    given = receive(consumer, 4, messages_max=4)
    assert given[0].id.entry == given[3].id.entry, "one batch: otherwise this tests nothing"
    consumer.acknowledge(0, given[-1].id)
    if handed_on == "to another consumer":
        consumer.close()
        consumer = open_log().consumer(topic, name="b")
    else:
        consumer.release(0)
    again = receive(consumer, 6, messages_max=100)
    assert numbers(again)[-6:] == list(range(4, 10))


def test_a_batch_that_was_acknowledged_to_its_end_does_not_come_again(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    log, topic = open_log(), new_topic(TopicKind.COMMANDS)
    publisher = log.publisher(topic, schema=SCHEMA)
    publisher.publish(0, entries(*range(10)), timeout_seconds=DEADLINE_SECONDS)
    consumer = log.consumer(topic, name="a")
    for _ in range(5):
        consumer.acknowledge(0, receive(consumer, 2, messages_max=2)[-1].id)
    consumer.close()
    publisher.publish(0, entries(10), timeout_seconds=DEADLINE_SECONDS)
    assert numbers(receive(open_log().consumer(topic, name="b"), 1, messages_max=100)) == [10]
