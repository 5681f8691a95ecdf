"""What a log promises besides, if it can say how far its workers are."""

import time
from collections.abc import Callable
from functools import partial

from magnetar.pipelines.log import KnowsBacklog, Log, Share, SharesOut
from magnetar.schemas import Topic

from tests.contract.log_contract import DEADLINE_SECONDS, PARTITIONS, SCHEMA, LogContract, entries


def knowing(log: Log) -> KnowsBacklog:
    """The log, as one that knows."""
    assert isinstance(log, KnowsBacklog)
    return log


class BacklogContract(LogContract):
    """The suite of a log that knows its backlog."""

    def test_a_topic_that_nobody_has_used_has_no_backlog_and_no_owner(
        self, log: Log, commands: Topic, events: Topic
    ) -> None:
        found = knowing(log).backlog(commands)
        assert [(each.active, each.acknowledged, each.waiting) for each in found] == [(None, None, 0)] * PARTITIONS
        assert list(knowing(log).owners(events)) == [None] * PARTITIONS

    def test_the_backlog_counts_what_stands_behind_the_last_acknowledged_message(
        self, log: Log, open_log: Callable[[], Log], commands: Topic
    ) -> None:
        self.publish(log, commands, 1, *range(10))
        assert [each.waiting for each in knowing(log).backlog(commands)] == [0, 10, 0, 0]
        consumer = open_log().consumer(commands, name="a")
        messages = [m for batch in self.receive([consumer], 10)[consumer] for m in batch.messages]
        self.publish(log, commands, 1, *range(10, 13))
        found = knowing(log).backlog(commands)[1]
        assert (found.active, found.waiting) == ("a", 13)
        consumer.acknowledge(1, messages[-1].id)
        self.eventually(log, lambda: knowing(log).backlog(commands)[1].waiting == 3)
        reader = log.reader(commands, 1, after=knowing(log).backlog(commands)[1].acknowledged)
        assert reader.read(messages_max=1, timeout_seconds=DEADLINE_SECONDS)[0].payload == b"10"
        reader.close()
        consumer.close()
        self.eventually(log, lambda: knowing(log).backlog(commands)[1].active is None)

    def test_the_owner_is_the_last_that_was_fenced_in_and_since_when(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        before_ms = time.time_ns() // 1_000_000
        for name in ("old", "new-1"):
            log.fence(events, 2, schema=SCHEMA, name=name).append(entries(1), timeout_seconds=DEADLINE_SECONDS)
            found = knowing(open_log()).owners(events)
            owner = found[2]
            assert owner is not None
            assert [each for each in found if each is not None] == [owner]
            assert owner.name == name
            assert abs(owner.since_ms - before_ms) < 60_000

    def test_projectors_share_an_event_topic_out_and_take_over_from_one_that_leaves(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        other = open_log()
        assert isinstance(log, SharesOut)
        assert isinstance(other, SharesOut)
        a, b = log.share(events, name="a"), other.share(events, name="b")
        self.eventually(log, lambda: self._is_shared_out(a, b))
        b.close()
        self.eventually(log, partial(self._has_all, a))
        a.close()

    def test_projectors_of_another_group_have_all_partitions_among_themselves(
        self, log: Log, open_log: Callable[[], Log], events: Topic
    ) -> None:
        other = open_log()
        assert isinstance(log, SharesOut)
        assert isinstance(other, SharesOut)
        a, b = log.share(events, name="a", group="boards"), other.share(events, name="b", group="boards")
        alone, rest = log.share(events, name="a"), log.share(events, name="c", group="others")
        self.eventually(log, lambda: self._is_shared_out(a, b))
        for share in (alone, rest):
            self.eventually(log, partial(self._has_all, share))
        a.close()
        self.eventually(log, partial(self._has_all, b))
        for share in (b, alone, rest):
            share.close()

    def _has_all(self, share: Share) -> bool:
        return share.mine() == frozenset(range(PARTITIONS))

    def _is_shared_out(self, a: Share, b: Share) -> bool:
        first, second = a.mine(), b.mine()
        return bool(first and second) and not first & second and len(first | second) == PARTITIONS
