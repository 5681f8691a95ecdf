"""What the client loses of the commands that the broker has given to it is read from the topic."""

import random
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pulsar
import pytest
from magnetar.pipelines import Outgoing, Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.history import log_of
from magnetar.pipelines.log import Message
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_messages import follows, message_of
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Topic, TopicKind

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Pay, Purse

COMMANDS = 60


class Forgetful:
    """A client's consumer that empties its queue after some messages, as it does when it subscribes twice."""

    def __init__(self, consumer: Any, after: int, lost: int) -> None:
        self._consumer = consumer
        self._after, self._lost = after, lost

    def receive(self, timeout_millis: int) -> Any:
        if self._after == 0:
            while self._lost:
                self._consumer.receive(10_000)
                self._lost -= 1
        self._after -= 1
        return self._consumer.receive(timeout_millis)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def decided(broker: Existing, log: PulsarLog, patch: pytest.MonkeyPatch, after: int, wanted: int) -> int:
    """How many of the commands are decided by a worker whose client loses twenty of them: so many, or more."""
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=1)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    provision(pipeline, log)
    with SyncClient(pipeline, settings=settings) as client:
        for number in range(0, COMMANDS, 6):  # in batches, and the loss begins within one
            list(client.send_many(Outgoing(Purse, f"p{number + n}", Pay(20), None) for n in range(6)))
    subscribe = log._others.subscribe
    patch.setattr(log._others, "subscribe", lambda *a, **k: Forgetful(subscribe(*a, **k), after, 20))
    (worker,) = workers_of(pipeline, log, name=f"w{random.random()}", clock=SystemClock())
    deadline = time.monotonic() + DEADLINE_SECONDS
    while worker.decided < wanted:
        worker.step(timeout_seconds=0.5)
        assert time.monotonic() < deadline
    while worker.step(timeout_seconds=1.0):
        pass
    worker.close()
    return sum(1 for _ in log_of(log, pipeline.topic("Purse", TopicKind.EVENTS), 0))


@pytest.mark.parametrize("after", [0, 10], ids=["at the beginning", "within a batch"])
def test_commands_that_the_client_loses_are_decided(
    broker: Existing, open_log: Callable[..., PulsarLog], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    assert decided(broker, open_log(), monkeypatch, after, COMMANDS) == COMMANDS


def test_without_looking_for_them_they_would_be_gone(
    broker: Existing, open_log: Callable[..., PulsarLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "_nothing_lacking", lambda _self, _owned, batch: [batch.messages])
    assert decided(broker, open_log(), monkeypatch, 0, COMMANDS - 20) == COMMANDS - 20


def test_a_message_follows_another_only_where_nothing_can_stand_between_them(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    log, topic = open_log(), new_topic(TopicKind.COMMANDS)
    publisher = log.publisher(topic, schema=SCHEMA)
    publisher.publish(0, entries(*range(5)), timeout_seconds=DEADLINE_SECONDS)
    publisher.publish(0, entries(5), timeout_seconds=DEADLINE_SECONDS)
    log._admin.call("PUT", f"/persistent/public/{topic}/unload")  # the next message stands in another ledger
    publisher.publish(0, entries(6), timeout_seconds=DEADLINE_SECONDS)
    consumer = log._others.subscribe(log._url(topic, 0), "here", initial_position=pulsar.InitialPosition.Earliest)
    found: list[tuple[Message, Any]] = [message_of(consumer.receive(10_000)) for _ in range(7)]
    assert found[0][0].id.entry == found[4][0].id.entry, "one batch: otherwise this tests less"
    follow = [follows(before, after.id) for before, (after, _) in pairwise(found)]
    assert follow == [True, True, True, True, True, False]
    assert not follows(found[2], found[5][0].id)
    assert not follows(found[4], found[0][0].id)
