"""The floor of the worker on Pulsar: a loop on `pulsar-client` alone.

It reads, decodes, encodes, writes, flushes and acknowledges the same commands as fast as we know how: batches from one
consumer after the other, sends without a callback, one flush for a batch. It decides nothing and remembers nothing.
"""

import json
from typing import Any, Final

import pulsar
from magnetar.pipelines.log import Log
from magnetar.pipelines.logs.pulsar_messages import message_of
from magnetar.pipelines.logs.pulsar_send import PassThrough
from magnetar.pipelines.settings import Settings
from magnetar.schemas import Topic
from magnetar.schemas.command_message import CommandCodec
from magnetar.schemas.commit import CommitCodec, Source, write_source

from .domain import BoxPut
from .measured import Took

BATCH: Final = pulsar.ConsumerBatchReceivePolicy(1000, -1, 5)
OWNER: Final = bytes(16)


class BareLoop:
    """Its consumers and producers, one for each partition."""

    def __init__(self, settings: Settings, log: Log, schema: Any, commands: Topic, events: Topic) -> None:
        quiet = pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
        self._client = pulsar.Client(settings.broker, logger=quiet)
        self._commands, self._commits = CommandCodec(schema), CommitCodec(schema)
        described = log.describe(commands)
        self._incarnation = described.incarnation
        at = f"persistent://{settings.tenant}"
        passing: Any = PassThrough(json.dumps(json.loads(schema.commit_json)))  # the client's types know two schemas
        self._parts = [
            (
                self._client.subscribe(
                    f"{at}/{commands}-partition-{partition}",
                    "bare",
                    consumer_type=pulsar.ConsumerType.Failover,
                    initial_position=pulsar.InitialPosition.Earliest,
                    batch_receive_policy=BATCH,
                ),
                self._client.create_producer(
                    f"{at}/{events}-partition-{partition}",
                    schema=passing,
                    access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing,
                    batching_enabled=True,
                    batching_max_publish_delay_ms=1,
                    batching_max_messages=1000,
                    max_pending_messages=10_000,
                    block_if_queue_full=True,
                    send_timeout_millis=0,
                ),
            )
            for partition in range(described.partitions)
        ]
        self._numbers = [0] * described.partitions
        for _, producer in self._parts:
            producer.send(self._commits.claim(OWNER, 0, "bare"))

    def run(self, commands: int) -> Took:
        """Until so many have been carried through."""
        done, start = 0, Took.now()
        while done < commands:
            for partition, (consumer, producer) in enumerate(self._parts):
                if batch := consumer.batch_receive():
                    self._carry_through(partition, batch, producer)
                    consumer.acknowledge_cumulative(batch[-1])
                    done += len(batch)
        return Took.since(start)

    def _carry_through(self, partition: int, batch: list[Any], producer: Any) -> None:
        number = self._numbers[partition]
        for received in batch:
            number += 1
            m, _ = message_of(received)
            message = self._commands.decode(m.payload)
            source = write_source(Source(m.id, m.published_at_ms, self._incarnation))
            tail = self._commits.accepted([BoxPut(message.command.amount, number, message.command.note)])
            commit = self._commits.encode(number, OWNER, message.envelope, 0, message.ids_to_time, source, tail)
            producer.send_async(commit, None, partition_key=m.key)
        producer.flush()
        self._numbers[partition] = number

    def close(self) -> None:
        """Close everything."""
        self._client.close()
