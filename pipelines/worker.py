"""The worker: takes partitions, decides their commands, commits, replies, acknowledges. In this order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog
from magnetar.aggregates import (
    Aggregate,
    Budget,
    Cells,
    CheckpointUnusable,
    Decision,
    FoundRound,
    IdWindow,
    PartitionProcessor,
    StateCodec,
)
from magnetar.aggregates.budget import IDS_MAX, STATES_MAX
from magnetar.aggregates.raised import traceback_of
from magnetar.schemas import (
    LogUnavailable,
    MagnetarError,
    MessageId,
    OutcomeUnknown,
    OwnershipLost,
    PartitionRefused,
    ReadRule,
    SettingsError,
    Topic,
    TopicKind,
    Undecodable,
    Verdict,
)
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandCodec
from magnetar.schemas.commit import CommitCodec, head_in_log, read_outcome
from magnetar.schemas.read_rule import START, Mark

from .checkpointing import Checkpoints
from .clock import Clock
from .history import COPIED, COPYING, Codecs, Marks, find
from .log import Appender, Appending, Batch, Entry, Log, Message, Run
from .reply import Reply
from .spill import SqliteSpill
from .tracing import Times, trace_id_of, tracing
from .worker_metrics import WorkerMetrics

FAILPOINTS: Final = (
    "after_receive",
    "at_claim",
    "after_decide",
    "after_send",
    "before_reply",
    "before_acknowledge",
    "before_checkpoint",
)
"""Where tests may crash or freeze a worker; each is passed once a chunk. Within a send, the adapters have theirs."""


_LOOK_SECONDS: Final = 1.0
"""How often a worker that has nothing to do asks whether a partition is still its own."""


class Random(Protocol):
    """Where the nonces of ownerships come from."""

    def randbytes(self, n: int, /) -> bytes:
        """That many random bytes."""
        ...


class WorkerOptions(msgspec.Struct, frozen=True):
    """How a worker works. Each default says what it trades."""

    chunk_messages_max: int = 1000
    """Commands decided before their commits are flushed: more is faster, and later for the first of them."""
    append_timeout_seconds: float = 30.0
    """Past this, a flush counts as lost, and the partition is taken anew."""
    claim_timeout_seconds: float = 60.0
    """How long the log may give nothing new before the own claim has come back, when a partition is taken."""
    lookup_timeout_seconds: float = 5.0
    """How long the commits of repeated commands are looked for; a client that gets no reply asks again."""
    pause_seconds: float = 0.5
    """How long a worker keeps off a partition that it lost or could not take, at least; up to twice that, at random,
    and twice as long each time in a row that it does not get as far as to decide a chunk."""
    pause_seconds_max: float = 2.0
    """The longest of these pauses, but for what chance adds."""
    checkpoint_commits: int = 50_000
    """How many commits there are at least between the beginnings of two checkpoints of a partition. Recovery reads at
    most twice as many, or twice as many as there are aggregates; more often costs more writing."""
    states_max: int = STATES_MAX
    """How many states stay in memory, of all partitions together; the others go to temporary files."""
    ids_max: int = IDS_MAX
    """How many command ids are remembered, of all partitions together; with more, the window is shorter."""


class _Owned:
    """A partition between its claim and its loss."""

    def __init__(
        self, appender: Appender, processor: PartitionProcessor, owner: bytes, checkpoints: Checkpoints
    ) -> None:
        self.appender = appender
        self.processor = processor
        self.owner = owner
        self.checkpoints = checkpoints
        self.marks = Marks()
        self.schema = 0
        self.seen: MessageId | None = None
        """The last command that was looked at: all before it have been."""
        self.copied_from: str | None = None
        """The context whose log is being copied here: until that is done, nobody may decide."""

    def close(self) -> None:
        """Let go of the log, and of what is in memory."""
        self.appender.close()
        self.checkpoints.close()
        self.processor.close()


class _Chunk(NamedTuple):
    """Decided commands of one partition, whose commits are on their way into the log."""

    owned: _Owned
    messages: Sequence[Message]
    decisions: Sequence[Decision]
    appending: Appending | None
    """None where nothing is to be stored: all of them were decided before."""
    begun_at: float
    decided_at: float

    @property
    def is_stored(self) -> bool:
        """Whether carrying it through does not have to wait for the log."""
        return self.appending is None or self.appending.is_over


class Worker:
    """Decides the commands of one aggregate, on whichever partitions the log grants it.

    Everything from outside is passed in: the log, the clock, the source of nonces, and a `failpoint` that tests use to
    crash or freeze it in the middle. One object, one thread.
    """

    def __init__(
        self,
        log: Log,
        aggregate: type[Aggregate],
        schema: AggregateSchema,
        *,
        partitions: int,
        name: str,
        clock: Clock,
        random: Random,
        options: WorkerOptions | None = None,
        budget: Budget | None = None,
        failpoint: Callable[[str], None] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called while a partition is recovered, which can take long. Workers on one thread may share a
        `budget`, which wins over the options."""
        self._log = log
        self._schema = schema
        self._partitions = partitions
        self._name = name
        self._clock = clock
        self._random = random
        self._options = options or WorkerOptions()
        self._budget = budget or Budget(states_max=self._options.states_max, ids_max=self._options.ids_max)
        self._failpoint = failpoint or (lambda _: None)
        self._beat = beat
        self._events = Topic(schema.context, schema.aggregate, TopicKind.EVENTS)
        self._checkpoints = Topic(schema.context, schema.aggregate, TopicKind.CHECKPOINTS)
        self._commands_topic = commands = Topic(schema.context, schema.aggregate, TopicKind.COMMANDS)
        self._codec = CommitCodec(schema)
        self._codecs = Codecs(log, self._events, self._codec)
        self._commands = Codecs(log, commands, CommandCodec(schema))
        self._states = StateCodec(aggregate)
        self._commands_topic = commands
        self._consumer = log.consumer(commands, name=name)
        self._owned: dict[int, _Owned] = {}
        self._under_way: dict[int, _Chunk] = {}
        """By partition, in the order in which they were decided: while the log stores one, the next is decided."""
        self._rejoin_at: dict[int, float] = {}
        self._losses: dict[int, int] = {}
        """How often in a row each partition was lost."""
        self._look_at = 0.0
        self.refused: dict[int, MagnetarError] = {}
        self.decided = 0
        self._metrics = WorkerMetrics(schema.context, schema.aggregate, clock)
        self._tracing = tracing()
        self._where = {"magnetar.context": schema.context, "magnetar.aggregate": schema.aggregate}
        self._logger = structlog.get_logger("magnetar.worker").bind(
            context=schema.context, aggregate=schema.aggregate, worker=name
        )

    @property
    def owned(self) -> tuple[int, ...]:
        """The partitions that this worker believes to own."""
        return tuple(sorted(self._owned))

    @property
    def keeps_off(self) -> bool:
        """Whether it lost a partition lately, and will take part in it again in a moment."""
        return bool(self._rejoin_at)

    def step(self, *, timeout_seconds: float) -> bool:
        """Wait for commands of one partition, and decide them; carry through what was decided before and is stored.

        1. Takes the partition, if it is not owned: fences, claims, reads the log up to the own claim.
        2. Decides each command. 3. Hands their commits to the log. Once these are stored, 4. sends the replies and
        5. acknowledges the commands. Nothing of a partition is decided while commits of it are on their way.

        Returns whether there was anything to do. Whatever goes wrong on the way costs the partition, never a command:
        it is released, and comes again, to this worker or another.
        """
        self._rejoin()
        patience = 0.0 if self._under_way else timeout_seconds
        batch = self._consumer.receive(messages_max=self._options.chunk_messages_max, timeout_seconds=patience)
        if batch is None:
            if self._under_way:
                self._finish(next(iter(self._under_way)))
                return True
            self._forget_what_others_have()
            return False
        self._failpoint("after_receive")
        if batch.messages:
            self._decide_batch(batch)
        else:  # the log has closed our part in the partition
            self._forget(batch.partition)
            self._metrics.gone(batch.partition, len(self._owned))
        for partition in [partition for partition, chunk in self._under_way.items() if chunk.is_stored]:
            self._finish(partition)
        return True

    def close(self) -> None:
        """Carry through what is decided, and let go of everything. What was not acknowledged goes to another worker."""
        self._finish_all()
        for owned in self._owned.values():
            owned.close()
        self._owned.clear()
        self._consumer.close()

    @contextmanager
    def _losing(self, partition: int) -> Generator[None]:
        """Whatever goes wrong with a partition costs this worker the partition, and nothing else."""
        try:
            yield
        except (PartitionRefused, Undecodable) as error:
            self._refuse(partition, error)
        except (OwnershipLost, OutcomeUnknown, LogUnavailable) as error:
            self._drop(partition, type(error).__name__, error.what)
        except SettingsError as error:  # the topic takes no event of this code's schema: others may be well
            self._drop(partition, type(error).__name__, f"{error.what} {error.cure}")

    # --- taking a partition -----------------------------------------------------------------------------------------

    def _take(self, partition: int) -> _Owned:
        """Become the owner, if the log still names this worker as the active one."""
        self._check_granted(partition)
        begun_at = self._clock.monotonic()
        appender = self._log.fence(self._events, partition, schema=self._schema.commit_json, name=self._name)
        try:
            owned = self._claim(partition, appender)
        except BaseException:
            appender.close()
            raise
        self._owned[partition] = owned
        self._metrics.taken(len(self._owned), self._clock.monotonic() - begun_at)
        self._logger.info("partition taken", partition=partition, number=owned.processor.next_number)
        return owned

    def _check_granted(self, partition: int) -> None:
        if not self._consumer.is_granted(partition):
            raise OwnershipLost("The log names another worker as the active one.")

    def _claim(self, partition: int, appender: Appender) -> _Owned:
        owner = self._random.randbytes(16)
        # Before the claim: what is acknowledged now stands before it, and what comes later may be the next owner's.
        has_decided = self._consumer.has_acknowledged(partition)
        claim = self._codec.claim(owner, self._clock.now_ms() * 1000, self._name)
        self._failpoint("at_claim")
        appender.append([Entry("", claim)], timeout_seconds=self._options.append_timeout_seconds)
        checkpoints = self._checkpoints_of(partition)
        for found in (*checkpoints.find(), None):
            owned = _Owned(appender, self._processor(partition), owner, checkpoints)
            try:
                self._recover(partition, owned, found)
                if has_decided:
                    self._check_not_empty(partition, owned)
            except CheckpointUnusable as error:
                checkpoints.rejected(found, error)
                owned.processor.close()
                continue
            except BaseException:
                owned.processor.close()
                raise
            owned.processor.begin(owner, self._log.describe(self._commands_topic).incarnation)
            owned.seen = owned.processor.last_source
            return owned
        raise AssertionError("without a checkpoint, no checkpoint is unusable")

    def _check_not_empty(self, partition: int, owned: _Owned) -> None:
        """Where commands were decided there are commits: if not, somebody has deleted them. They are not begun anew."""
        if owned.processor.next_number == 1:
            raise PartitionRefused(
                f"{self._events} partition {partition} has no commit, and commands were decided there: what they "
                "made is gone, and so are the states that others are to be decided on.",
                cure="Was the topic deleted? Put it back from a backup. To begin the whole aggregate anew, delete its "
                "command topic too, and run `magnetar provision MODULE`.",
            )

    def _processor(self, partition: int) -> PartitionProcessor:
        return new_processor(
            self._log,
            self._states,
            self._schema,
            partition=partition,
            partitions=self._partitions,
            budget=self._budget,
        )

    def _checkpoints_of(self, partition: int) -> Checkpoints:
        return Checkpoints(
            self._log,
            self._checkpoints,
            self._events,
            partition,
            self._states.fingerprint,
            name=self._name,
            commits=self._options.checkpoint_commits,
            beat=self._beat,
        )

    def _recover(self, partition: int, owned: _Owned, found: FoundRound | None) -> None:
        """Read the log up to the own claim, found by its nonce: only what stands before it is the log.

        1. Restores the checkpoint, if there is one. 2. Reads the log from there on. Raises CheckpointUnusable.
        """
        start = START
        if found is not None:
            beginning = owned.checkpoints.restore(found, owned.processor)
            start = beginning.at
            owned.marks = Marks([*beginning.marks, start])
        self._replay(partition, owned, start)

    def _replay(self, partition: int, owned: _Owned, start: Mark) -> None:
        rule = ReadRule(start.owner, start.expected)
        reader = self._log.reader(self._events, partition, after=start.after)
        asked_at = self._clock.monotonic()
        deadline = asked_at + self._options.claim_timeout_seconds
        try:
            while True:
                if self._clock.monotonic() - asked_at > 1.0:
                    asked_at = self._clock.monotonic()
                    self._check_granted(partition)
                self._beat()
                run = reader.read_run(messages_max=1000, timeout_seconds=1.0)
                if run is not None:
                    # All of the run is judged, also behind the own claim: the mark stands behind its last message.
                    claims = [self._is_own_claim(payload, run, owned, rule) for payload in run.payloads]
                    owned.marks.add(Mark(run.last, rule.owner, rule.expected))
                    if any(claims):
                        break
                    owned.processor.settle()
                    deadline = self._clock.monotonic() + self._options.claim_timeout_seconds
                elif self._clock.monotonic() > deadline:
                    raise OutcomeUnknown(f"The claim of {self._events} partition {partition} did not come back.")
        finally:
            reader.close()
        if rule.is_cut:
            raise PartitionRefused(
                f"{self._events} partition {partition} begins with commit {rule.begins_at:,}, and no checkpoint has "
                "what was before it: nobody knows the states that the commands are to be decided on.",
                cure="Was the log trimmed? `magnetar doctor` looks at its retention. Put the topic back from a backup.",
            )
        if rule.owner != owned.owner:
            raise OwnershipLost("Another worker has claimed the partition already.")

    def _is_own_claim(self, payload: bytes, run: Run, owned: _Owned, rule: ReadRule) -> bool:
        number, owner = head_in_log(payload, run.last)
        verdict = rule.judge(number, owner)
        if verdict is Verdict.COUNTS:
            owned.processor.replay(self._codecs.of(run.schema).decode_effect(payload))
        if verdict is not Verdict.CLAIM:
            return False
        metadata = read_outcome(payload)[1]
        if COPYING in metadata or COPIED in metadata:
            owned.copied_from = metadata.get(COPYING)
        if owner != owned.owner:
            return False
        if owned.copied_from is not None:
            raise PartitionRefused(
                f"The log of {owned.copied_from} is being copied into {self._events}, and not all of it is there.",
                cure=f"Let `magnetar copy` come to its end: run it again with --to {self._events.context}.",
            )
        owned.schema = run.schema
        return True

    # --- deciding a chunk -------------------------------------------------------------------------------------------

    def _nothing_lacking(self, owned: _Owned, batch: Batch) -> Iterator[Sequence[Message]]:
        """The batch, and before it what stands on the topic between it and what was seen last.

        The log says how far the commands are decided, whatever the broker holds for delivered.
        """
        first, after = batch.messages[0].id, owned.seen
        if batch.may_lack and (after is None or first > after):
            reader = self._log.reader(self._commands_topic, batch.partition, after=after)
            try:
                found: Sequence[Message] = ()
                while not found or found[-1].id < first:
                    found = reader.read(messages_max=1000, timeout_seconds=self._options.lookup_timeout_seconds)
                    if not found:
                        raise LogUnavailable(f"{self._commands_topic} ends before {tuple(first)}, which was given.")
                    if lacking := [message for message in found if message.id < first]:
                        self._logger.info("commands not given", partition=batch.partition, count=len(lacking))
                        yield lacking
            finally:
                reader.close()
        yield batch.messages

    def _decide_batch(self, batch: Batch) -> None:
        partition = batch.partition
        if partition not in self._owned:
            self._finish_all()  # taking it can last
        with self._losing(partition):
            self._carry_through(partition)
            self._metrics.took_in_hand(partition, batch.messages[0].published_at_ms)
            owned = self._owned.get(partition) or self._take(partition)
            for messages in self._nothing_lacking(owned, batch):
                self._carry_through(partition)
                self._under_way[partition] = self._decide(owned, messages)

    def _decide(self, owned: _Owned, messages: Sequence[Message]) -> _Chunk:
        begun_at = self._clock.monotonic()
        codecs = [self._commands.of(message.schema) for message in messages]
        decisions = [
            owned.processor.decide(m.id, m.key, m.payload, m.published_at_ms, codec)
            for m, codec in zip(messages, codecs, strict=True)
        ]
        self._failpoint("after_decide")
        decided_at = self._clock.monotonic()
        entries = [Entry(d.key, d.commit) for d in decisions if d.commit is not None]
        timeout_seconds = self._options.append_timeout_seconds
        appending = owned.appender.begin(entries, timeout_seconds=timeout_seconds) if entries else None
        return _Chunk(owned, messages, decisions, appending, begun_at, decided_at)

    def _carry_through(self, partition: int) -> None:
        """Wait until what is on its way is stored, if anything of the partition is; answer, acknowledge."""
        chunk = self._under_way.pop(partition, None)
        if chunk is None:
            return
        owned, messages, decisions = chunk.owned, chunk.messages, chunk.decisions
        if chunk.appending is not None:
            owned.marks.add(Mark(chunk.appending.wait(), owned.owner, owned.processor.next_number))
        self._failpoint("after_send")
        self._say(partition, chunk, self._clock.monotonic() - chunk.decided_at)
        self._metrics.reached(partition, owned.processor.next_number - 1)
        self._failpoint("before_reply")
        self._reply(owned, partition, decisions)
        self._failpoint("before_acknowledge")
        self._consumer.acknowledge(partition, messages[-1].id)
        owned.seen = messages[-1].id if owned.seen is None else max(owned.seen, messages[-1].id)
        self.decided += len(decisions)
        self._losses.pop(partition, None)
        self._failpoint("before_checkpoint")
        if owned.checkpoints.write(owned.processor, owned.marks):
            self._metrics.checkpoint(partition, self._clock.now_ms() / 1000)
        owned.processor.settle()

    def _finish(self, partition: int) -> None:
        with self._losing(partition):
            self._carry_through(partition)

    def _finish_all(self) -> None:
        for partition in list(self._under_way):
            self._finish(partition)

    def _say(self, partition: int, chunk: _Chunk, flush_seconds: float) -> None:
        """What became of a chunk, in figures, traces and, of what was parked, in the log."""
        messages, decisions, decide_seconds = chunk.messages, chunk.decisions, chunk.decided_at - chunk.begun_at
        self._metrics.decided(decisions, decide_seconds, flush_seconds)
        if self._tracing is not None:
            times = Times.until(self._clock.now_ms(), decide_seconds, flush_seconds)
            self._tracing.decided({**self._where, "magnetar.partition": partition}, messages, decisions, times)
        for message, decision in zip(messages, decisions, strict=True):
            if decision.outcome == "parked":
                self._say_parked(partition, message, decision)

    def _say_parked(self, partition: int, message: Message, decision: Decision) -> None:
        self._logger.warning(
            "command parked",
            partition=partition,
            number=decision.number,
            command_id=decision.command_id,
            reason=decision.reason,
            **({} if (trace_id := trace_id_of(message.payload)) is None else {"trace_id": trace_id}),
            **({} if decision.raised is None else {"exception": traceback_of(decision.raised)}),
        )

    def _reply(self, owned: _Owned, partition: int, decisions: Sequence[Decision]) -> None:
        """Answer those who wait: new commits from memory, older ones read again from the log."""
        asked = [d for d in decisions if d.reply_to is not None and d.number is not None]
        if not asked:
            return
        commits = {d.number: Reply(partition, owned.schema, d.commit) for d in decisions if d.commit is not None}
        missing = [d.number for d in asked if d.number is not None and d.number not in commits]
        if missing:
            deadline = self._clock.monotonic() + self._options.lookup_timeout_seconds
            is_late = lambda: self._clock.monotonic() > deadline  # noqa: E731
            found = find(self._log, self._events, partition, missing, owned.marks, is_late=is_late)
            commits.update({number: Reply(partition, m.schema, m.payload) for number, m in found.items()})
        by_address: dict[str, list[bytes]] = {}
        for decision in asked:
            if decision.number in commits and decision.reply_to is not None:
                by_address.setdefault(decision.reply_to, []).append(commits[decision.number].encode())
        for address, payloads in by_address.items():
            self._log.reply(address, payloads)

    # --- losing a partition -----------------------------------------------------------------------------------------

    def _drop(self, partition: int, reason: str, detail: str) -> None:
        """No longer the owner, or not sure: forget all, give the commands back, keep off for a moment."""
        self._forget(partition)
        self._consumer.leave(partition)
        self._keep_off(partition)
        self._metrics.lost(partition, len(self._owned), reason)
        self._logger.warning("partition lost", partition=partition, reason=reason, detail=detail)

    def _forget_what_others_have(self) -> None:
        """Ask of one partition, the one that was asked of longest ago, and of more where the answer is no.

        What has gone to another worker brings no command any more that would show it, and its states would stay in
        memory.
        """
        if self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + _LOOK_SECONDS
        while self._owned:
            partition = next(iter(self._owned))
            try:
                is_ours = self._consumer.is_granted(partition)
            except LogUnavailable:
                return
            if is_ours:
                self._owned[partition] = self._owned.pop(partition)
                return
            self._forget(partition)
            self._metrics.lost(partition, len(self._owned), OwnershipLost.__name__)
            self._logger.info("partition is another worker's", partition=partition)

    def _rejoin(self) -> None:
        """Joining can last, where a broker is gone and is still named: a partition that is owned waits for one of them
        alone."""
        due = [partition for partition, at in self._rejoin_at.items() if self._clock.monotonic() >= at]
        for partition in due[:1] if self._owned else due:
            self._finish_all()
            self._beat()
            del self._rejoin_at[partition]
            try:
                self._consumer.release(partition)
            except LogUnavailable as error:
                self._keep_off(partition)
                self._logger.warning("partition cannot be joined", partition=partition, detail=error.what)

    def _keep_off(self, partition: int) -> None:
        """Longer each time in a row: what cannot be had must not keep the worker, or the log, busy."""
        self._losses[partition] = losses = self._losses.get(partition, 0) + 1
        pause = min(self._options.pause_seconds * 2 ** min(losses - 1, 16), self._options.pause_seconds_max)
        jitter = 1 + self._random.randbytes(1)[0] / 256
        self._rejoin_at[partition] = self._clock.monotonic() + pause * jitter

    def _refuse(self, partition: int, error: MagnetarError) -> None:
        """This code cannot fold what stands there: leave the partition to code that can."""
        self._forget(partition)
        self.refused[partition] = error
        self._metrics.refused(partition, len(self._owned), len(self.refused))
        self._consumer.leave(partition)
        self._logger.error("partition refused", partition=partition, what=error.what, cure=error.cure)

    def _forget(self, partition: int) -> None:
        self._under_way.pop(partition, None)
        owned = self._owned.pop(partition, None)
        if owned is not None:
            owned.close()


def new_processor(
    log: Log,
    states: StateCodec,
    schema: AggregateSchema,
    *,
    partition: int,
    partitions: int,
    budget: Budget,
) -> PartitionProcessor:
    """A partition before anything has happened on it. States beyond the budget go to a temporary file."""
    return PartitionProcessor(
        states.aggregate,
        schema,
        partition=partition,
        partitions=partitions,
        commit_bytes_max=log.message_bytes_max,
        ids=IdWindow(allowance=budget.ids),
        cells=Cells(states, allowance=budget.states, spill=SqliteSpill()),
    )
