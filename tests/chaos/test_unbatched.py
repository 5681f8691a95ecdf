"""Workers on a real Pulsar that take a partition from a live one, which streams its commits unbatched."""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pulsar
import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.history import messages_behind
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.worker import Worker
from magnetar.schemas import MessageId, ReadRule, TopicKind, Verdict, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from magnetar.schemas.commit import read_head

from tests.chaos.processes import eventually
from tests.pulsar_rig import Standalone, data_folder, started
from tests.unit.pipelines.purses import Pay, Purse

ROUNDS = 5  # each replays what the ones before it wrote: a new partition is sooner there than a long one
PARTITIONS, PARTITIONS_MAX = 2, 30
BACKLOG = 15_000

pytestmark = [pytest.mark.broker, pytest.mark.soak]


@pytest.fixture(scope="module")
def broker() -> Iterator[Standalone]:
    """A broker."""
    with data_folder() as folder, started(Standalone(folder)) as standalone:
        yield standalone


class Takeovers:
    """One partition with a backlog, which newer and newer workers take while the older ones stream."""

    def __init__(self, broker: Standalone, closing: ExitStack) -> None:
        self._broker = broker
        self._closing = closing
        self.pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=1)
        self.log = self._open()
        provision(self.pipeline, self.log)
        self._rule, self._found = ReadRule(), list[Verdict]()
        self._last: MessageId | None = None
        schema = self.pipeline.schemas["Purse"]
        self._codec = CommandCodec(schema)
        self._publisher = self.log.publisher(
            self.pipeline.topic("Purse", TopicKind.COMMANDS), schema=schema.command_json
        )

    def _open(self) -> PulsarLog:
        log = PulsarLog(self._broker.service_url, self._broker.admin_url, clock=SystemClock(), batching=False)
        self._closing.callback(log.close)
        return log

    def send(self, count: int) -> None:
        """More commands."""
        now_ms = SystemClock().now_ms()
        envelopes = [CommandEnvelope("p", uuid7(now_ms, random.getrandbits(74)), now_ms * 1000) for _ in range(count)]
        entries = [Entry("p", self._codec.encode(each, Pay(20))) for each in envelopes]
        self._publisher.publish(0, entries, timeout_seconds=240)

    def join(self, round_number: int) -> Worker:
        """A worker on a thread, whose name stands before those of all others: the broker makes it the active one."""
        (worker,) = workers_of(self.pipeline, self._open(), name=f"w{1000 - round_number:04}", clock=SystemClock())
        stopped = threading.Event()
        thread = threading.Thread(target=decide_until, args=(stopped.is_set, [worker], SystemClock()))
        thread.start()
        self._closing.callback(worker.close)
        self._closing.callback(thread.join)
        self._closing.callback(stopped.set)
        return worker

    def verdicts(self) -> list[Verdict]:
        """What the read rule says of each message."""
        topic = self.pipeline.topic("Purse", TopicKind.EVENTS)
        end, reader = self.log.end(topic, 0), self.log.reader(topic, 0, after=self._last)
        while end is not None and (self._last is None or self._last < end):
            for message in reader.read(messages_max=10_000, timeout_seconds=240):
                self._found.append(self._rule.judge(*read_head(message.payload)[:2]))
                self._last = message.id
        reader.close()
        return self._found


def taken_over(broker: Standalone) -> list[Verdict]:
    """What the read rule says of a partition taken over ROUNDS times, or until a commit that its worker holds for
    stored does not count."""
    with ExitStack() as closing:
        takeovers, verdicts = Takeovers(broker, closing), list[Verdict]()
        for round_number in range(ROUNDS):
            takeovers.send(BACKLOG)
            worker = takeovers.join(round_number)
            eventually(lambda: worker.decided > 0, "the partition is taken over")  # noqa: B023
            time.sleep(0.2)
            verdicts = takeovers.verdicts()
            if Verdict.DUPLICATE in verdicts:
                break
        return verdicts


def test_all_that_the_old_owner_stored_stands_before_the_new_ones_commits(broker: Standalone) -> None:
    for _ in range(PARTITIONS):
        verdicts = taken_over(broker)
        assert Verdict.DUPLICATE not in verdicts
        assert verdicts.count(Verdict.CLAIM) >= ROUNDS


def test_with_the_claim_not_read_that_fails(broker: Standalone, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = PulsarLog.fence

    def fence_and_look(self: Any, topic: Any, partition: int, **names: Any) -> Any:
        """Look where the log ends as soon as that can be: by a consumer, in a millisecond. By HTTP it takes longer than
        what is on its way."""
        consumer = self._others.subscribe(
            self._url(topic, partition), uuid.uuid4().hex, initial_position=pulsar.InitialPosition.Latest
        )
        appender = fence(self, topic, partition, **names)
        id = consumer.get_last_message_id()
        self.end_at_fence = MessageId(id.ledger_id(), id.entry_id(), id.batch_index()) if id.entry_id() >= 0 else None
        consumer.unsubscribe()
        return appender

    def replay_to_the_end_at_the_fence(self: Any, partition: int, owned: Any, start: Any) -> None:
        rule, end = ReadRule(start.owner, start.expected), self._log.end_at_fence
        for message in messages_behind(self._log, self._events, partition, start.after):
            if end is None or message.id > end:
                break
            if rule.judge(*read_head(message.payload)[:2]) is Verdict.COUNTS:
                owned.processor.replay(self._codecs.of(message.schema).decode_effect(message.payload))
            owned.schema = message.schema

    monkeypatch.setattr(PulsarLog, "fence", fence_and_look)
    monkeypatch.setattr(Worker, "_replay", replay_to_the_end_at_the_fence)
    assert any(Verdict.DUPLICATE in taken_over(broker) for _ in range(PARTITIONS_MAX))
