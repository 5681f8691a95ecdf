"""Each protection of the product taken away, by a patch and not by a switch in the product: the runs must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from magnetar.aggregates import Cells, PartitionProcessor
from magnetar.aggregates.id_window import FrozenIds, IdWindow
from magnetar.pipelines.checkpointing import Checkpoints
from magnetar.pipelines.spill import SqliteSpill
from magnetar.pipelines.worker import Worker
from magnetar.projections.fold_table import FoldTable, States
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.range_loop import RangeLoop
from magnetar.projections.rows_table import RowsTable
from magnetar.schemas import ReadRule, Verdict

from tests.simulation.sim_log import SimAppender, SimAppending, SimLog
from tests.simulation.sim_store import SimStore
from tests.simulation.sim_tables import SimFold

Sabotage = Callable[[pytest.MonkeyPatch], None]


def before_it_is_stored(patch: pytest.MonkeyPatch, do: Callable[[Any, int, Any], None]) -> None:
    """Something is done with a chunk whose commits are still on their way."""
    carry_through = Worker._carry_through

    def carry(self: Any, partition: int) -> None:
        if partition in self._under_way:
            do(self, partition, self._under_way[partition])
        carry_through(self, partition)

    patch.setattr(Worker, "_carry_through", carry)


def acknowledge_before_append(patch: pytest.MonkeyPatch) -> None:
    """The commands are given up before their commits are stored."""
    before_it_is_stored(
        patch, lambda self, partition, chunk: self._consumer.acknowledge(partition, chunk.messages[-1].id)
    )


def decide_before_append(patch: pytest.MonkeyPatch) -> None:
    """The next commands are decided, and nobody waits for the commits of those before."""
    decide_batch, carry_through = Worker._decide_batch, Worker._carry_through

    def decide(self: Any, batch: Any) -> None:
        self.decides = batch.partition
        decide_batch(self, batch)
        self.decides = None

    def carry(self: Any, partition: int) -> None:
        if getattr(self, "decides", None) != partition:
            carry_through(self, partition)

    patch.setattr(Worker, "_decide_batch", decide)
    patch.setattr(Worker, "_carry_through", carry)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Taking a partition over does not stop its old writer."""

    def take_no_notice(self: Any) -> None:
        self._token = self._partition.owner

    patch.setattr(SimAppender, "check_owner", take_no_notice)


def claim_not_read(patch: pytest.MonkeyPatch) -> None:
    """The log is read up to the end that was there when the fence had returned, and not up to the own claim."""
    fence = SimLog.fence

    def fence_and_note_the_end(self: Any, topic: Any, partition: int, **names: Any) -> Any:
        appender = fence(self, topic, partition, **names)
        self.end_at_fence = len(self.broker.topic(topic).partitions[partition].messages)
        return appender

    def replay(self: Any, partition: int, owned: Any, start: Any) -> None:
        rule, owned.schema = ReadRule(), self._log.number_of(self._events, self._schema.commit_json)
        reader, left = self._log.reader(self._events, partition, after=None), self._log.end_at_fence
        while left:
            run = reader.read_run(messages_max=left, timeout_seconds=1.0)
            left -= len(run.payloads)
            for payload in run.payloads:
                self._is_own_claim(payload, run, owned, rule)

    patch.setattr(SimLog, "fence", fence_and_note_the_end)
    patch.setattr(Worker, "_replay", replay)
    patch.setattr(Checkpoints, "find", lambda _: [])


def reply_before_append(patch: pytest.MonkeyPatch) -> None:
    """Clients are told of commits that are not stored yet."""
    reply = Worker._reply
    before_it_is_stored(patch, lambda self, partition, chunk: reply(self, chunk.owned, partition, chunk.decisions))
    patch.setattr(Worker, "_reply", lambda *_: None)


def prefetched_dropped_without_closing(patch: pytest.MonkeyPatch) -> None:
    """A lost partition's commands are forgotten, and its consumer stays the active one."""
    patch.setattr(Worker, "_drop", lambda self, partition, *_: self._forget(partition))


def lacking_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    """What the log's client lost of the commands is not read from their topic."""
    patch.setattr(Worker, "_nothing_lacking", lambda _self, _owned, batch: [batch.messages])


def number_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Whatever the current owner wrote counts: duplicates and orphans too."""

    def judge(self: Any, number: int, owner: bytes) -> Verdict:
        if number == 0:
            self.owner = owner
            return Verdict.CLAIM
        if owner != self.owner:
            return Verdict.VOID
        self.expected = number + 1
        return Verdict.COUNTS

    patch.setattr(ReadRule, "judge", judge)


def source_and_id_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Neither the last source nor the command ids are looked at."""
    patch.setattr(PartitionProcessor, "_was_decided", lambda *_: False)
    patch.setattr(IdWindow, "find", lambda *_: None)


def id_not_remembered(patch: pytest.MonkeyPatch) -> None:
    """Repeats by the client are decided again."""
    patch.setattr(IdWindow, "find", lambda *_: None)


def source_not_checked(patch: pytest.MonkeyPatch) -> None:
    """What has no id of its own is parked again when it is redelivered."""
    patch.setattr(PartitionProcessor, "_was_decided", lambda *_: False)


def unknown_outcome_taken_for_a_failure(patch: pytest.MonkeyPatch) -> None:
    """After a failed append the worker keeps the partition, and sends the same entries once more."""
    wait = SimAppending.wait

    def wait_twice(self: Any) -> Any:
        from magnetar.schemas import OutcomeUnknown

        try:
            return wait(self)
        except OutcomeUnknown:
            return wait(self._appender.begin(self._flight.entries, timeout_seconds=30.0))

    patch.setattr(SimAppending, "wait", wait_twice)


def pending_row_skipped(patch: pytest.MonkeyPatch) -> None:
    """Ranges are inserted without being written down."""
    patch.setattr(SimStore, "write_pending", lambda *_: None)


def pending_range_not_replayed(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes next goes on behind the range that was written down."""

    def skip(self: Any, pending: Any) -> None:
        wanted = pending.last - pending.first + 1
        while wanted:
            _, more = self._collect(wanted, timeout_seconds=10.0)
            wanted -= len(more)

    patch.setattr(RangeLoop, "_replay", skip)


def lease_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Inserts do not look whether their lease is the newest."""
    patch.setattr(SimStore, "is_newest", lambda *_: True)


def older_inserts_not_stopped(patch: pytest.MonkeyPatch) -> None:
    """A new owner does not wait for what an older one has begun to insert."""
    patch.setattr(SimStore, "stop_older_inserts", lambda *_: None)


def range_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    """A new owner inserts the pending range again, whether it is there or not, and trusts in its token."""
    patch.setattr(SimStore, "look", lambda *_: None)


class _Silent:
    """The store of one replay, which does not write the pending range down."""

    def __init__(self, store: Any) -> None:
        self.insert = store.insert

    def write_pending(self, *_: Any) -> None:
        """Leave it out."""


def pending_row_not_taken_over(patch: pytest.MonkeyPatch) -> None:
    """An older owner's range is replayed without being written down under the own lease."""
    replay = RangeLoop._replay

    def replay_silently(self: Any, pending: Any) -> None:
        store, self._store = self._store, _Silent(self._store)
        replay(self, pending)
        self._store = store

    patch.setattr(RangeLoop, "_replay", replay_silently)


def progress_read_before_the_lease(patch: pytest.MonkeyPatch) -> None:
    """How far the table is, is read before the lease is taken and older inserts are stopped."""
    take_lease, read_pending = SimStore.take_lease, SimStore.read_pending

    def take(self: Any, partition: int, nonce: str) -> Any:
        read = read_pending(self, partition)
        lease = take_lease(self, partition, nonce)
        self.read_before = read
        return lease

    patch.setattr(SimStore, "take_lease", take)
    patch.setattr(SimStore, "read_pending", lambda self, _: self.read_before)


def checkpoint_before_append(patch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written with states whose commits are not stored."""

    def write(_self: Any, _partition: int, chunk: Any) -> None:
        chunk.owned.checkpoints.write(chunk.owned.processor, chunk.owned.marks)

    before_it_is_stored(patch, write)


def restored_states_folded_twice(patch: pytest.MonkeyPatch) -> None:
    """The events behind the beginning of a round are applied to states that have them already."""

    def fold(self: Any, commit: Any) -> None:
        version, state = self._cells.get(commit.aggregate_id) or self._seed
        for event in commit.events:
            state = state.apply(event)
        self._cells.put(commit.aggregate_id, version + len(commit.events), state)

    patch.setattr(PartitionProcessor, "_fold", fold)


def ids_not_in_checkpoints(patch: pytest.MonkeyPatch) -> None:
    """Whoever recovers from a checkpoint knows only the ids behind it."""
    patch.setattr(FrozenIds, "pieces", lambda _: iter(()))


def states_not_in_checkpoints(patch: pytest.MonkeyPatch) -> None:
    """Whoever recovers from a checkpoint knows only the states behind it."""
    patch.setattr(Cells, "dump", lambda _: iter(()))


def spilled_states_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory is gone."""
    patch.setattr(SqliteSpill, "load", lambda *_: None)


def older_states_kept(patch: pytest.MonkeyPatch) -> None:
    """Who takes a partition back goes on with the states that he had."""
    forget = SimFold.forget

    def forget_once(self: Any, partition: int) -> None:
        if partition not in self._states:
            forget(self, partition)

    patch.setattr(SimFold, "forget", forget_once)


def range_folded_twice(patch: pytest.MonkeyPatch) -> None:
    """It is not looked whether a range is in the table: its token keeps the rows out, and the states have it twice."""
    insert = ProjectedTable.insert

    def insert_again(self: Any, partition: int, *rest: Any) -> None:
        self._last[partition] = 0
        insert(self, partition, *rest)

    patch.setattr(ProjectedTable, "insert", insert_again)


def evicted_states_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """What has no room in memory is not read back from the table."""
    put = States.put

    def put_and_stay_whole(self: Any, states: Any) -> None:
        is_whole = self.is_whole
        put(self, states)
        self.is_whole = is_whole

    patch.setattr(States, "put", put_and_stay_whole)


def merged_rows_taken_for_lost(patch: pytest.MonkeyPatch) -> None:
    """A key's older row is expected to be there beside the newer one, as the rows of a Rows are."""
    patch.setattr(FoldTable, "is_whole", RowsTable.is_whole)


TABLE_SABOTAGES: Final[tuple[Sabotage, ...]] = (
    older_states_kept,
    range_folded_twice,
    evicted_states_begin_anew,
    merged_rows_taken_for_lost,
)
"""These are about the tables of rows and folds alone."""

LOOP_SABOTAGES: Final[tuple[Sabotage, ...]] = (
    pending_range_not_replayed,
    lease_not_checked,
    older_inserts_not_stopped,
    progress_read_before_the_lease,
)
"""These harm the tables of the mirror, and those of rows and folds, each in its way."""

SABOTAGES: Final[tuple[Sabotage, ...]] = (
    acknowledge_before_append,
    decide_before_append,
    no_fence,
    claim_not_read,
    reply_before_append,
    prefetched_dropped_without_closing,
    lacking_not_looked_for,
    number_not_checked,
    source_and_id_forgotten,
    id_not_remembered,
    source_not_checked,
    unknown_outcome_taken_for_a_failure,
    pending_row_skipped,
    range_not_looked_for,
    pending_row_not_taken_over,
    checkpoint_before_append,
    restored_states_folded_twice,
    ids_not_in_checkpoints,
    states_not_in_checkpoints,
    spilled_states_forgotten,
)
