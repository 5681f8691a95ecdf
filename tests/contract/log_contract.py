"""What every log promises: an adapter's test file subclasses LogContract and says how its log is opened.

The cases that only a real broker shows by itself are here too; each adapter brings them about in its own way, or says
why they cannot happen to it, and then the stronger promise is tested.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest
from magnetar.pipelines.log import Appender, Batch, Consumer, Entry, Log, Message, Reader, Run
from magnetar.schemas import (
    LogUnavailable,
    MessageRefused,
    OutcomeUnknown,
    OwnershipLost,
    SettingsError,
    Topic,
    TopicKind,
)

SCHEMA = '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]}'
WIDER = (
    '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}, '
    '{"name": "y", "type": ["null", "long"], "default": null}]}'
)
DEADLINE_SECONDS = 120.0
PARTITIONS = 4


def entries(*numbers: int, key: str = "k") -> list[Entry]:
    """Messages that can be told apart."""
    return [Entry(key, b"%d" % number) for number in numbers]


def numbers(messages: Sequence[Message]) -> list[int]:
    """What `entries` was given."""
    return [int(message.payload) for message in messages]


class LogContract:
    """The suite. `open_log` opens the same log again, as another process would."""

    message_bytes_max = 5 * 1024 * 1024 - 64 * 1024

    @pytest.fixture
    def open_log(self) -> Iterator[Callable[[], Log]]:
        """How to open the log once more; the subclass closes what was opened."""
        raise NotImplementedError

    @pytest.fixture
    def log(self, open_log: Callable[[], Log]) -> Log:
        """The log."""
        return open_log()

    @pytest.fixture
    def commands(self, log: Log) -> Topic:
        """A fresh command topic."""
        topic = Topic(f"c{uuid.uuid4().hex[:12]}", "Thing", TopicKind.COMMANDS)
        log.provision(topic, partitions=PARTITIONS, schema=SCHEMA)
        return topic

    @pytest.fixture
    def events(self, log: Log) -> Topic:
        """A fresh event topic."""
        topic = Topic(f"c{uuid.uuid4().hex[:12]}", "Thing", TopicKind.EVENTS)
        log.provision(topic, partitions=PARTITIONS, schema=SCHEMA)
        return topic

    # --- helpers ----------------------------------------------------------------------------------------------------

    def advance(self, log: Log) -> None:
        """Let time pass; adapters with a simulated clock do more than wait."""
        time.sleep(0.02)

    def read_all(self, log: Log, topic: Topic, partition: int, count: int) -> list[Message]:
        """Read until `count` messages have come."""
        reader = log.reader(topic, partition, after=None)
        found: list[Message] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(found) < count and time.monotonic() < deadline:
            found += reader.read(messages_max=1000, timeout_seconds=0.5)
        found += reader.read(messages_max=1000, timeout_seconds=0.2)
        reader.close()
        return found

    def receive(self, consumers: Sequence[Consumer], count: int) -> dict[Consumer, list[Batch]]:
        """Receive from several consumers in turn until `count` messages have come."""
        got: dict[Consumer, list[Batch]] = {consumer: [] for consumer in consumers}
        deadline = time.monotonic() + DEADLINE_SECONDS
        seen = 0
        while seen < count and time.monotonic() < deadline:
            for consumer in consumers:
                batch = consumer.receive(messages_max=100, timeout_seconds=0.05)
                if batch is not None:
                    got[consumer].append(batch)
                    seen += len(batch.messages)
        return got

    def eventually(self, log: Log, holds: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.advance(log)

    def publish(self, log: Log, topic: Topic, partition: int, *values: int) -> None:
        """Publish some numbers."""
        publisher = log.publisher(topic, schema=SCHEMA)
        publisher.publish(partition, entries(*values), timeout_seconds=DEADLINE_SECONDS)
        publisher.close()

    def fence(self, log: Log, topic: Topic, name: str = "worker") -> Appender:
        """Become the owner of partition 0."""
        return log.fence(topic, 0, schema=SCHEMA, name=name)

    # --- topics and schemas -----------------------------------------------------------------------------------------

    def test_provisioning_again_changes_nothing(self, log: Log, open_log: Callable[[], Log], events: Topic) -> None:
        before = log.describe(events)
        log.provision(events, partitions=PARTITIONS, schema=SCHEMA)
        assert open_log().describe(events) == before
        assert before.partitions == PARTITIONS
        assert str(uuid.UUID(before.incarnation)) == before.incarnation

    def test_another_number_of_partitions_is_refused(self, log: Log, events: Topic) -> None:
        with pytest.raises(SettingsError, match="partitions"):
            log.provision(events, partitions=PARTITIONS + 1, schema=SCHEMA)

    def test_a_topic_that_does_not_exist_is_not_made_by_using_it(self, log: Log) -> None:
        missing = Topic(f"c{uuid.uuid4().hex[:12]}", "Nothing", TopicKind.EVENTS)
        with pytest.raises(LogUnavailable):
            log.describe(missing)
        with pytest.raises((LogUnavailable, SettingsError)):
            self.fence(log, missing)
        with pytest.raises(LogUnavailable):
            log.describe(missing)

    def test_messages_carry_the_number_of_their_schema(self, log: Log, events: Topic) -> None:
        appender = self.fence(log, events)
        appender.append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        log.provision(events, partitions=PARTITIONS, schema=WIDER)
        log.provision(events, partitions=PARTITIONS, schema=SCHEMA)
        newer = log.fence(events, 0, schema=WIDER, name="newer")
        newer.append(entries(2), timeout_seconds=DEADLINE_SECONDS)
        first, second = self.read_all(log, events, 0, 2)
        assert first.schema != second.schema
        assert '"y"' not in log.schema(events, first.schema)
        assert '"y"' in log.schema(events, second.schema)

    def test_a_run_ends_where_the_schema_changes_and_loses_nothing(self, log: Log, events: Topic) -> None:
        log.provision(events, partitions=PARTITIONS, schema=WIDER)
        for first, schema in ((0, SCHEMA), (3, WIDER), (6, SCHEMA)):
            appender = log.fence(events, 0, schema=schema, name=f"from {first}")
            appender.append(entries(*range(first, first + 3)), timeout_seconds=DEADLINE_SECONDS)
        messages = self.read_all(log, events, 0, 9)
        reader = log.reader(events, 0, after=messages[0].id)
        runs: list[Run] = []
        self.eventually(log, lambda: len(self._payloads(reader, runs)) >= 8)
        assert self._payloads(reader, runs) == [message.payload for message in messages[1:]]
        for run in runs:
            of_run = messages[messages.index(next(m for m in messages if m.payload == run.payloads[0])) :]
            assert {message.schema for message in of_run[: len(run.payloads)]} == {run.schema}
            assert run.last == of_run[len(run.payloads) - 1].id
        reader.close()

    def _payloads(self, reader: Reader, runs: list[Run], *, messages_max: int = 100) -> list[bytes]:
        if run := reader.read_run(messages_max=messages_max, timeout_seconds=0.1):
            runs.append(run)
        return [payload for run in runs for payload in run.payloads]

    def test_a_run_has_as_many_messages_as_are_wanted_at_most(self, log: Log, events: Topic) -> None:
        self.fence(log, events).append(entries(*range(10)), timeout_seconds=DEADLINE_SECONDS)
        reader = log.reader(events, 0, after=None)
        runs: list[Run] = []
        self.eventually(log, lambda: len(self._payloads(reader, runs, messages_max=3)) >= 10)
        assert max(len(run.payloads) for run in runs) <= 3
        assert [payload for run in runs for payload in run.payloads] == [entry.payload for entry in entries(*range(10))]
        assert reader.read_run(messages_max=3, timeout_seconds=0.05) is None
        reader.close()

    def test_a_schema_that_reads_the_log_differently_is_refused_and_nothing_registered(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        with pytest.raises(SettingsError, match=r"R\.x: was int, is str"):
            log.provision(events, partitions=PARTITIONS, schema=SCHEMA.replace('"long"', '"string"'))
        with pytest.raises(SettingsError, match=r"R\.x: is gone"):
            open_log().provision(events, partitions=PARTITIONS, schema=WIDER.replace('"x"', '"z"'))
        log.provision(events, partitions=PARTITIONS, schema=WIDER)

    # --- appending and reading --------------------------------------------------------------------------------------

    def test_what_was_appended_is_read_in_its_order(self, log: Log, open_log: Callable[[], Log], events: Topic) -> None:
        appender = self.fence(log, events)
        ids = [appender.append(entries(*range(n, n + 3)), timeout_seconds=DEADLINE_SECONDS) for n in (0, 3, 6)]
        messages = self.read_all(open_log(), events, 0, 9)
        assert numbers(messages) == list(range(9))
        assert [messages[i].id for i in (2, 5, 8)] == ids
        assert sorted(message.id for message in messages) == [message.id for message in messages]
        assert all(abs(message.published_at_ms - messages[0].published_at_ms) < 600_000 for message in messages)

    def test_keys_and_bytes_come_back_as_they_were(self, log: Log, events: Topic) -> None:
        sent = [Entry("", b"a"), Entry("ü/7\n'", bytes(range(256))), Entry("k" * 512, b"\x00")]
        self.fence(log, events).append(sent, timeout_seconds=DEADLINE_SECONDS)
        assert [(m.key, m.payload) for m in self.read_all(log, events, 0, 3)] == sent

    def test_a_reader_goes_on_behind_any_message(self, log: Log, events: Topic) -> None:
        self.fence(log, events).append(entries(*range(10)), timeout_seconds=DEADLINE_SECONDS)
        messages = self.read_all(log, events, 0, 10)
        for at in (0, 4, 8):
            reader = log.reader(events, 0, after=messages[at].id)
            found: list[Message] = []
            self.eventually(log, lambda r=reader, f=found, a=at: len(self._more(r, f)) >= 9 - a)  # type: ignore[misc]
            assert numbers(found) == list(range(at + 1, 10))
            reader.close()

    def _more(self, reader: object, found: list[Message]) -> list[Message]:
        found += reader.read(messages_max=100, timeout_seconds=0.1)  # type: ignore[attr-defined]
        return found

    def test_a_reader_follows_the_end(self, log: Log, events: Topic) -> None:
        reader = log.reader(events, 0, after=None)
        assert list(reader.read(messages_max=10, timeout_seconds=0.05)) == []
        appender = self.fence(log, events)
        found: list[Message] = []
        for number in range(3):
            appender.append(entries(number), timeout_seconds=DEADLINE_SECONDS)
            self.eventually(log, lambda n=number: len(self._more(reader, found)) > n)  # type: ignore[misc]
        assert numbers(found) == [0, 1, 2]

    def test_partitions_are_apart(self, log: Log, events: Topic) -> None:
        for partition in range(PARTITIONS):
            appender = log.fence(events, partition, schema=SCHEMA, name="worker")
            appender.append(entries(partition), timeout_seconds=DEADLINE_SECONDS)
        for partition in range(PARTITIONS):
            assert numbers(self.read_all(log, events, partition, 1)) == [partition]

    def test_the_end_is_the_last_message(self, log: Log, events: Topic) -> None:
        assert log.end(events, 0) is None
        appender = log.fence(events, 0, schema=SCHEMA, name="w")
        last = appender.append(entries(*range(10)), timeout_seconds=10)
        assert log.end(events, 0) == last == self.read_all(log, events, 0, 10)[-1].id
        assert log.end(events, 1) is None

    def test_trimming_loses_nothing_behind_it_and_places_stay(self, log: Log, open_log: Callable[[], Log]) -> None:
        topic = Topic(f"trim{uuid.uuid4().hex[:8]}", "Thing", TopicKind.CHECKPOINTS)
        log.provision(topic, partitions=1, schema=SCHEMA)
        appender = log.fence(topic, 0, schema=SCHEMA, name="w")
        ids = [appender.append(entries(n), timeout_seconds=10) for n in range(10)]
        log.trim(topic, 0, through=ids[5])
        log.trim(topic, 0, through=ids[3])  # a late one takes nothing back and drops nothing more
        other = open_log()
        left = numbers(self.read_all(other, topic, 0, 4))
        assert left[-4:] == [6, 7, 8, 9]
        assert left == list(range(10 - len(left), 10))
        reader = other.reader(topic, 0, after=ids[7])
        assert numbers(reader.read(messages_max=10, timeout_seconds=5)) in ([8], [8, 9])
        reader.close()
        for id in ids:
            log.trim(topic, 0, through=id)
        assert appender.append(entries(10), timeout_seconds=10) > ids[-1]

    def test_a_message_over_the_limit_is_refused_and_nothing_is_stored(
        self, log: Log, events: Topic, commands: Topic
    ) -> None:
        large = [Entry("k", b"1"), Entry("k", bytes(log.message_bytes_max + 1))]
        appender = self.fence(log, events)
        with pytest.raises(MessageRefused):
            appender.append(large, timeout_seconds=DEADLINE_SECONDS)
        with pytest.raises(MessageRefused):
            log.publisher(commands, schema=SCHEMA).publish(0, large, timeout_seconds=DEADLINE_SECONDS)
        appender.append(entries(2), timeout_seconds=DEADLINE_SECONDS)
        assert numbers(self.read_all(log, events, 0, 1)) == [2]

    def test_a_message_of_the_limit_is_taken(self, log: Log, events: Topic) -> None:
        payload = bytes(log.message_bytes_max)
        self.fence(log, events).append([Entry("k", payload)], timeout_seconds=DEADLINE_SECONDS)
        (message,) = self.read_all(log, events, 0, 1)
        assert message.payload == payload

    # --- the fence --------------------------------------------------------------------------------------------------

    def test_a_fenced_appender_loses_its_ownership_and_stores_nothing_more(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        old = self.fence(log, events, "old")
        old.append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        new = self.fence(open_log(), events, "new")
        new.append(entries(2), timeout_seconds=DEADLINE_SECONDS)
        with pytest.raises(OwnershipLost):
            old.append(entries(3), timeout_seconds=DEADLINE_SECONDS)
        new.append(entries(4), timeout_seconds=DEADLINE_SECONDS)
        old.close()
        assert numbers(self.read_all(log, events, 0, 3)) == [1, 2, 4]

    def test_an_owner_can_come_back_by_fencing_again(self, log: Log, events: Topic) -> None:
        for number in range(3):
            self.fence(log, events, f"w{number % 2}").append(entries(number), timeout_seconds=DEADLINE_SECONDS)
        assert numbers(self.read_all(log, events, 0, 3)) == [0, 1, 2]

    def test_a_streaming_owner_is_fenced_between_its_confirmed_messages_and_the_new_owners(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        old, confirmed, stop = self.fence(log, events, "old"), list[int](), threading.Event()

        def stream() -> None:
            for number in itertools.count(10, 10):
                try:
                    old.append(entries(number), timeout_seconds=DEADLINE_SECONDS)
                except (OwnershipLost, OutcomeUnknown):
                    return
                confirmed.append(number)
                if stop.is_set():
                    return

        thread = threading.Thread(target=stream)
        thread.start()
        try:
            self.eventually(log, lambda: len(confirmed) > 20)
            new = self.fence(open_log(), events, "new")
            new.append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        finally:  # the log must not be closed under its hands
            stop.set()
            thread.join()
        read = numbers(self.read_all(log, events, 0, len(confirmed) + 1))
        before, after = read[: read.index(1)], read[read.index(1) + 1 :]
        assert after == []
        assert set(confirmed) <= set(before)
        assert before == sorted(before)

    # --- commands and grants ----------------------------------------------------------------------------------------

    def test_a_lone_consumer_gets_all_partitions_in_order(self, log: Log, commands: Topic) -> None:
        for partition in range(PARTITIONS):
            self.publish(log, commands, partition, *range(partition * 10, partition * 10 + 5))
        consumer = log.consumer(commands, name="a")
        got = self.receive([consumer], 20)[consumer]
        for partition in range(PARTITIONS):
            messages = [m for batch in got if batch.partition == partition for m in batch.messages]
            assert numbers(messages) == list(range(partition * 10, partition * 10 + 5))
            assert consumer.is_granted(partition)
        assert consumer.receive(messages_max=10, timeout_seconds=0.05) is None

    def test_two_consumers_share_the_partitions(self, log: Log, open_log: Callable[[], Log], commands: Topic) -> None:
        a, b = log.consumer(commands, name="a"), open_log().consumer(commands, name="b")
        self.eventually(log, lambda: self._granted(a) | self._granted(b) == set(range(PARTITIONS)))
        self.eventually(log, lambda: len(self._granted(a)) == len(self._granted(b)) == PARTITIONS // 2)
        assert not self._granted(a) & self._granted(b)

    def _granted(self, consumer: Consumer) -> set[int]:
        consumer.receive(messages_max=1, timeout_seconds=0.01)
        return {partition for partition in range(PARTITIONS) if consumer.is_granted(partition)}

    def test_what_a_closed_consumer_did_not_acknowledge_comes_to_another(
        self, log: Log, open_log: Callable[[], Log], commands: Topic
    ) -> None:
        self.publish(log, commands, 0, 1, 2)
        self.publish(log, commands, 0, 3, 4)
        a = log.consumer(commands, name="a")
        first = self.receive([a], 4)[a]
        messages = [m for batch in first for m in batch.messages]
        a.acknowledge(0, messages[1].id)
        a.close()
        b = open_log().consumer(commands, name="b")
        again = [n for batch in self.receive([b], 2)[b] for n in numbers(batch.messages)]
        assert again == [3, 4]

    def test_whether_anything_of_a_partition_was_ever_acknowledged_is_told_to_whoever_comes(
        self, log: Log, open_log: Callable[[], Log], commands: Topic
    ) -> None:
        self.publish(log, commands, 0, 1, 2)
        self.publish(log, commands, 1, 3)
        a = log.consumer(commands, name="a")
        assert not a.has_acknowledged(0)
        received = [batch for batch in self.receive([a], 3)[a] if batch.partition == 0]
        assert not a.has_acknowledged(0)
        a.acknowledge(0, received[-1].messages[-1].id)
        a.close()
        b = open_log().consumer(commands, name="b")
        self.eventually(log, lambda: b.has_acknowledged(0))
        assert not b.has_acknowledged(1)
        assert not b.has_acknowledged(2)

    def test_release_brings_back_what_was_not_acknowledged(self, log: Log, commands: Topic) -> None:
        self.publish(log, commands, 0, *range(10))
        consumer = log.consumer(commands, name="a")
        self.receive([consumer], 10)
        consumer.release(0)
        again = [n for batch in self.receive([consumer], 10)[consumer] for n in numbers(batch.messages)]
        assert again == list(range(10))

    def test_a_partition_that_was_left_goes_to_the_other(
        self, log: Log, open_log: Callable[[], Log], commands: Topic
    ) -> None:
        a, b = log.consumer(commands, name="a"), open_log().consumer(commands, name="b")
        self.eventually(log, lambda: len(self._granted(a)) == len(self._granted(b)) == PARTITIONS // 2)
        left = min(self._granted(a))
        a.leave(left)
        self.eventually(log, lambda: left in self._granted(b))
        assert not a.is_granted(left)
        self.publish(log, commands, left, 7)
        got = self.receive([a, b], 1)
        assert [n for batch in got[b] for n in numbers(batch.messages)] == [7]
        a.release(left)
        self.eventually(log, lambda: len(self._granted(a)) == PARTITIONS // 2)

    def test_an_acknowledgement_covers_all_before(self, log: Log, open_log: Callable[[], Log], commands: Topic) -> None:
        self.publish(log, commands, 0, *range(5))
        a = log.consumer(commands, name="a")
        messages = [m for batch in self.receive([a], 5)[a] for m in batch.messages]
        a.acknowledge(0, messages[-1].id)
        a.close()
        self.publish(log, commands, 0, 5)
        b = open_log().consumer(commands, name="b")
        assert [n for batch in self.receive([b], 1)[b] for n in numbers(batch.messages)] == [5]

    # --- replies ----------------------------------------------------------------------------------------------------

    def test_replies_arrive(self, log: Log, open_log: Callable[[], Log]) -> None:
        inbox, got = open_log().inbox(), list[bytes]()
        log.reply(inbox.address, [b"one", b"two"])
        log.reply(inbox.address, [b"three"])
        self.eventually(log, lambda: len(self._receive_replies(inbox, got)) >= 3)
        assert got == [b"one", b"two", b"three"]

    def _receive_replies(self, inbox: object, got: list[bytes]) -> list[bytes]:
        got += inbox.receive(timeout_seconds=0.05)  # type: ignore[attr-defined]
        return got

    @pytest.mark.parametrize(
        "address", ["", "../../x", "nobody", "a\0b", "persistent://public/default/x", "/etc/passwd"]
    )
    def test_a_reply_to_an_address_that_is_none_is_dropped(self, log: Log, address: str) -> None:
        log.reply(address, [b"lost"])

    def test_a_reply_to_an_inbox_that_is_gone_is_dropped(self, log: Log) -> None:
        inbox = log.inbox()
        inbox.close()
        log.reply(inbox.address, [b"lost"])

    # --- what only a real broker does by itself ---------------------------------------------------------------------

    late_landings_impossible_because: str | None = None
    """Why entries of an old owner cannot land after the fence has returned; None if they can."""

    def land_late(self, log: Log, events: Topic) -> Appender:
        """Fence while entries of the old owner (10, 11, …) are on their way; the new owner's appender."""
        raise NotImplementedError

    def test_entries_of_the_old_owner_land_before_the_new_owners_first_or_never(self, log: Log, events: Topic) -> None:
        new = self.land_late(log, events)
        at_fence = len(self.read_all(log, events, 0, 0))
        new.append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        reader, found = log.reader(events, 0, after=None), list[Message]()
        self.eventually(log, lambda: b"1" in [message.payload for message in self._more(reader, found)])
        time.sleep(0.5)  # what could still land has the time to
        while self._more(reader, after := list[Message]()):
            found += after
        assert numbers(found)[-1] == 1
        if self.late_landings_impossible_because is not None:
            assert len(found) == at_fence + 1

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        """Bring about an append of the number 5 that ends with OutcomeUnknown and is stored, or will be."""
        raise NotImplementedError

    unknown_outcomes_impossible_because: str | None = None
    """Why an append that was not confirmed is never stored; None if it can be."""

    def test_an_unknown_outcome_may_have_been_stored(self, log: Log, events: Topic) -> None:
        with pytest.raises((OutcomeUnknown, LogUnavailable)):
            self.unknown_but_stored(log, events)
        expected = [] if self.unknown_outcomes_impossible_because else [5]
        read = numbers(self.read_all(log, events, 0, len(expected)))
        assert read == expected

    def reconnect(self, log: Log) -> None:
        """Make the consumers' connections break and come back."""
        raise NotImplementedError

    def test_after_a_reconnect_what_was_not_acknowledged_is_given_again_or_still_held(
        self, log: Log, commands: Topic
    ) -> None:
        self.publish(log, commands, 0, *range(6))
        consumer = log.consumer(commands, name="a")
        messages = [m for batch in self.receive([consumer], 6)[consumer] for m in batch.messages]
        consumer.acknowledge(0, messages[2].id)
        self.reconnect(log)
        consumer.release(0)
        again = [n for batch in self.receive([consumer], 3)[consumer] for n in numbers(batch.messages)]
        assert again[-3:] == [3, 4, 5]
