"""The sharing out of commands in the simulation, as a broker's Failover subscriptions do it, with their faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from magnetar.pipelines.log import Batch, Message
from magnetar.schemas import MessageId, SettingsError

from tests.simulation.stage import Stage

PREFETCH: Final = 6


class Subscription:
    """One partition of a command topic: who takes part, who is active, and how far it is acknowledged."""

    def __init__(self, partition: int, messages: list[Message]) -> None:
        self.partition = partition
        self.messages = messages
        self.members: dict[str, SimConsumer] = {}
        self.active: SimConsumer | None = None
        self.acknowledged = 0

    def join(self, consumer: SimConsumer) -> None:
        self.members[consumer.name] = consumer
        self._choose()

    def leave(self, consumer: SimConsumer) -> None:
        if self.members.get(consumer.name) is consumer:
            del self.members[consumer.name]
        if self.active is consumer:
            self.active = None
        self._choose()

    def _choose(self) -> None:
        """Whoever becomes active is given everything that is not acknowledged."""
        names = sorted(self.members)
        chosen = self.members[names[self.partition % len(names)]] if names else None
        if chosen is not self.active:
            self.active = chosen
            if chosen is not None:
                chosen.rewind(self.partition)


class SimConsumer:
    """One worker's part. What it has prefetched it gives out, even when it has long stopped being the active one."""

    def __init__(self, stage: Stage, subscriptions: Sequence[Subscription], name: str) -> None:
        if any(name in each.members for each in subscriptions):
            raise SettingsError(f"A worker called {name!r} is running already.")
        self._stage = stage
        self.subscriptions = subscriptions
        self.name = name
        self._given: dict[int, int] = {}
        self._prefetched: dict[int, list[Message]] = {each.partition: [] for each in subscriptions}
        self._lacking: set[int] = set()
        self._parts: set[int] = set()
        self._turn = 0
        for each in subscriptions:
            self._parts.add(each.partition)
            each.join(self)

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        stage = self._stage
        stage.switch("receive")
        if stage.strikes("reconnect"):
            for partition in self._parts:
                self._prefetched[partition].clear()
                self.rewind(partition)
        if stage.strikes("prefetched is lost"):
            self._lacking |= {partition for partition, queue in self._prefetched.items() if queue}
            for queue in self._prefetched.values():
                queue.clear()
        batch = self._next(messages_max)
        if batch is None:
            stage.sleep(timeout_seconds)
            batch = self._next(messages_max)
        return batch

    def _next(self, messages_max: int) -> Batch | None:
        count = len(self.subscriptions)
        for step in range(count):
            partition = (self._turn + step) % count
            if partition in self._parts:
                self._prefetch(self.subscriptions[partition])
                if queue := self._prefetched[partition]:
                    few = self._stage.pick("how many are received", messages_max)
                    size = few or messages_max
                    batch = Batch(partition, queue[:size], partition in self._lacking)
                    self._lacking.discard(partition)
                    del queue[:size]
                    self._turn = partition + 1
                    return batch
        return None

    def _prefetch(self, subscription: Subscription) -> None:
        partition, queue = subscription.partition, self._prefetched[subscription.partition]
        given = self._given.get(partition, subscription.acknowledged)
        room = PREFETCH - len(queue)
        if room <= 0 or given >= len(subscription.messages):
            return
        if subscription.active is self or self._stage.strikes("wrong grant"):
            queue += subscription.messages[given : given + room]
            self._given[partition] = min(given + room, len(subscription.messages))

    def rewind(self, partition: int) -> None:
        """Be given everything again that is not acknowledged, behind what is prefetched."""
        self._given[partition] = self.subscriptions[partition].acknowledged

    def is_granted(self, partition: int) -> bool:
        stage = self._stage
        stage.switch("is it granted")
        if partition not in self._parts or stage.strikes("grant denied"):
            return False
        return self.subscriptions[partition].active is self or stage.strikes("wrong grant")

    def has_acknowledged(self, partition: int) -> bool:
        return self.subscriptions[partition].acknowledged > 0

    def acknowledge(self, partition: int, through: MessageId) -> None:
        self._stage.switch("acknowledge")
        if partition in self._parts and not self._stage.strikes("acknowledgement is lost"):
            subscription = self.subscriptions[partition]
            subscription.acknowledged = max(subscription.acknowledged, through.ledger)

    def release(self, partition: int) -> None:
        self.leave(partition)
        self._stage.switch("subscribe again")
        self._parts.add(partition)
        self.subscriptions[partition].join(self)

    def leave(self, partition: int) -> None:
        self._stage.switch("leave")
        self._drop(partition)

    def _drop(self, partition: int) -> None:
        self._parts.discard(partition)
        self._prefetched[partition].clear()
        self._given.pop(partition, None)
        self.subscriptions[partition].leave(self)

    def close(self) -> None:
        for each in self.subscriptions:
            self._drop(each.partition)
