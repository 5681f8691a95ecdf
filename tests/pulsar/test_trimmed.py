"""An event topic that the broker has trimmed: what is in the tables goes on, and nothing new begins."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest
from magnetar.pipelines.log import Entry
from magnetar.pipelines.log_start import begins_at, check_begins
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.projections.range_loop import Lease, Range, RangeLoop
from magnetar.schemas import LogUnavailable, StoreUnavailable, Topic, TopicKind, uuid7
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import NO_SOURCE, CommitCodec, write_source

from tests.contract.log_contract import DEADLINE_SECONDS
from tests.unit.pipelines.test_worker import SCHEMA

OWNER = b"o" * 16


class Numbers:
    """A store that keeps the numbers, and the pending range as a table would."""

    def __init__(self) -> None:
        self.pending: Range | None = None
        self.epochs = count(1)
        self.numbers: list[int] = []

    def take_lease(self, partition: int, nonce: str) -> Lease:
        return Lease(next(self.epochs), nonce)

    def stop_older_inserts(self, partition: int) -> None: ...

    def read_pending(self, partition: int) -> Range | None:
        return self.pending

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        self.pending = pending

    def tell(self, partition: int, number: int) -> None: ...

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        self.numbers = [*self.numbers[: inserted.first - 1], *range(inserted.first, inserted.last + 1)]


def commit(number: int) -> Entry:
    codec, envelope = CommitCodec(SCHEMA), CommandEnvelope("a", uuid7(1, number), 0)
    ids = encode_ids_to_time(envelope)
    return Entry("a", codec.encode(number, OWNER, envelope, 0, ids, write_source(NO_SOURCE), codec.nothing()))


def append(log: PulsarLog, topic: Topic, *entries: Entry) -> None:
    appender = log.fence(topic, 0, schema=SCHEMA.commit_json, name="w")
    appender.append(list(entries), timeout_seconds=DEADLINE_SECONDS)
    appender.close()


def drained(store: Numbers, log: PulsarLog, topic: Topic) -> list[int]:
    loop = RangeLoop(store, 0, lambda after: log.reader(topic, 0, after=after), nonce="n", range_commits_max=10)
    try:
        while loop.step(timeout_seconds=3.0):  # what the broker has comes within that
            pass
        return store.numbers
    finally:
        loop.close()


def test_a_trimmed_topic_fills_no_new_table_and_an_old_one_goes_on(open_log: Callable[..., PulsarLog]) -> None:
    log = open_log()
    topic = Topic(f"c{uuid7(1, 7)[-12:]}", "Thing", TopicKind.EVENTS)
    log.provision(topic, partitions=1, schema=SCHEMA.commit_json)
    append(log, topic, Entry("", CommitCodec(SCHEMA).claim(OWNER, 0, "w")), *(commit(n) for n in range(1, 21)))
    partition = f"/persistent/public/{topic}-partition-0"
    log._admin.call("PUT", f"{partition}/unload")  # what comes now stands in another ledger
    append(log, topic, *(commit(n) for n in range(21, 31)))
    old = Numbers()
    assert drained(old, log, topic) == list(range(1, 31))
    log._admin.call("DELETE", f"{partition}/truncate")
    append(log, topic, commit(31))
    assert drained(old, log, topic) == list(range(1, 32))
    assert begins_at(log, topic, 0) == 21
    with pytest.raises(StoreUnavailable, match="partition 0 begins with commit 21: those before it are gone"):
        drained(Numbers(), log, topic)
    with pytest.raises(LogUnavailable, match="partition 0 begins with commit 21: those before it are gone"):
        check_begins(log, topic, 1)
