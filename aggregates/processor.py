"""The logic of one partition: from a command's bytes to its commit's. No I/O, no clock, no random source."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple

from magnetar.schemas import (
    MessageId,
    Meta,
    PartitionRefused,
    Undecodable,
    is_uuid7,
    partition_of,
    why_bad_aggregate_id,
)
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import (
    DROP,
    RESOLVES,
    CommandCodec,
    CommandEnvelope,
    CommandMessage,
    UnknownCommandType,
    encode_ids_to_time,
)
from magnetar.schemas.commit import CommitCodec, Effect, Parked, time_of, write_place
from magnetar.schemas.framing import write_string
from magnetar.schemas.ids import NIL, is_uuid
from magnetar.schemas.read_rule import Mark

from .aggregate import Aggregate, Contract, contract_of
from .cells import Cell, Cells
from .checkpoint import Beginning, CheckpointUnusable, Round, restore_block
from .decide import decide, evolve
from .id_window import IdWindow, packed
from .raised import what_was_raised
from .state_codec import StateCodec

_TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999: what a datetime can hold."""


class Decision(NamedTuple):
    """What became of one command message.

    `commit` is the new commit's bytes, to be appended under `key`; None for a message that has been decided before,
    whose commit is the one with `number`, or is not remembered if `number` is None. `reason` is why it was parked, and
    `raised` what the domain's code raised then.
    """

    commit: bytes | None
    key: str
    number: int | None
    command_id: str
    reply_to: str | None
    outcome: str
    reason: str = ""
    raised: Exception | None = None
    events: int = 0
    """How many its commit has."""


class Cannot(Exception):
    """Why a command cannot be decided; becomes its parked commit's reason."""

    def __init__(self, reason: str, detail: str, raised: Exception | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.raised = raised


class PartitionProcessor:
    """Holds the aggregates of one partition, and turns each command into exactly one commit.

    Feed it the log first (`replay`, in its order), then `begin` an ownership, then `decide` command after command.
    A decision changes the states at once: whoever cannot store its commit throws the whole processor away.
    """

    def __init__(
        self,
        aggregate: type[Aggregate],
        schema: AggregateSchema,
        *,
        partition: int,
        partitions: int,
        commit_bytes_max: int,
        ids: IdWindow | None = None,
        cells: Cells | None = None,
    ) -> None:
        self._aggregate: Any = aggregate
        self._contract: Contract = contract_of(aggregate)
        self._commands = CommandCodec(schema)
        self._commits = CommitCodec(schema)
        self._partition = partition
        self._partitions = partitions
        self._commit_bytes_max = commit_bytes_max
        self._ids = IdWindow() if ids is None else ids
        self._cells = Cells(StateCodec(aggregate)) if cells is None else cells
        self._seed: Cell = (0, aggregate())
        self._is_restored = False
        self._incarnation_of_last = ""
        self._last_id: MessageId | None = None
        self._owner = b""
        self._begun_on = ""
        self._incarnation = b""
        self.next_number = 1

    # --- recovery ---------------------------------------------------------------------------------------------------

    def replay(self, commit: Effect) -> None:
        """Take a commit that counts into the states, the remembered ids and the last source."""
        if commit.events:
            self._fold(commit)
        self._last_id = commit.source.id
        self._incarnation_of_last = commit.source.incarnation
        if commit.command_id != NIL:
            self._ids.remember(packed(commit.command_id), commit.number, commit.source.published_at_ms)
        self.next_number = commit.number + 1

    def _fold(self, commit: Effect) -> None:
        version, state = self._cells.get(commit.aggregate_id) or self._seed
        if commit.version < version and self._is_restored:
            return  # the state is of a later moment than the beginning of its round: it has these events
        if commit.version != version or state is None:
            what = f"Commit {commit.number} goes on from version {commit.version} of {commit.aggregate_id!r}"
            if self._is_restored:
                raise CheckpointUnusable(f"{what}, and the checkpoint has version {version}.")
            raise PartitionRefused(
                f"{what}, and the commits before it make version {version}.",
                cure="The log is not whole. Restore it from a copy.",
            )
        try:
            state = evolve(state, commit.events)
        except Exception as error:  # the domain's code is anybody's
            raise PartitionRefused(
                f"Commit {commit.number} cannot be replayed: apply raised {type(error).__name__}: {error}.",
                cure=f"Mend {type(state).__qualname__}.apply: it has to take every event that was ever stored.",
            ) from error
        self._cells.put(commit.aggregate_id, version + len(commit.events), state)

    def settle(self) -> None:
        """Keep to the memory that the states may take; call it between chunks."""
        self._cells.settle()

    def close(self) -> None:
        """Throw the states and ids away."""
        self._cells.close()
        self._ids.close()

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def restore(self, beginning: Beginning) -> None:
        """Become what a round began with; its other blocks follow, by `restore_block`, and then the log behind it."""
        self._is_restored = True
        self._last_id, self._incarnation_of_last = beginning.source, beginning.incarnation
        self._ids.restore(beginning.forgotten_ms, beginning.stamps)
        self.next_number = beginning.at.expected

    def restore_block(self, body: bytes) -> None:
        """Take in a block of the round. Raises CheckpointUnusable."""
        restore_block(body, self._cells, self._ids)

    def begin_round(self, before: Mark, at: Mark, marks: list[Mark]) -> Round:
        """Begin a round where all decided commits are stored: at `at`, to which the log leads from `before`."""
        ids = self._ids.freeze()
        incarnation = self._incarnation_of_last if self._last_id is None else self._begun_on
        beginning = Beginning(before, at, self._last_id, incarnation, ids.forgotten_ms, ids.stamps, marks)
        return Round(self._cells.fingerprint, self._owner, beginning, ids, self._cells)

    # --- an ownership -----------------------------------------------------------------------------------------------

    def begin(self, owner: bytes, incarnation: str) -> None:
        """Start deciding under a new ownership, on a command topic of this incarnation."""
        self._owner = owner
        self._begun_on = incarnation
        self._incarnation = write_string(incarnation)
        if self._incarnation_of_last != incarnation:
            self._last_id = None  # the topic was made anew: its commands are not those that were decided
        if self._contract.can_end:
            for id, (version, state) in self._cells.touched():
                with suppress(Cannot):  # an is_ended that raises: the aggregate's commands will be parked
                    if state is not None and self._has_ended(state):
                        self._cells.put(id, version, None)

    @property
    def last_source(self) -> MessageId | None:
        """The place of the last command that was decided on this topic."""
        return self._last_id

    def state_of(self, aggregate_id: str) -> tuple[int, Any]:
        """Version and state of an aggregate: version 0 and the seed if nothing has happened to it, no state if it has
        ended."""
        return self._cells.get(aggregate_id) or self._seed

    # --- deciding ---------------------------------------------------------------------------------------------------

    def decide(
        self, id: MessageId, key: str, payload: bytes, published_at_ms: int, codec: CommandCodec | None = None
    ) -> Decision:
        """Decide one command message, in the order of the command topic. `codec` is that of the message's schema."""
        envelope: CommandEnvelope | None = None
        try:
            message = (codec or self._commands).decode(payload)
            envelope = message.envelope
            known_as = _known_as(envelope)
            if (repeat := self._find_repeat(id, envelope, known_as)) is not None:
                return repeat
            if self._was_decided(id):
                return Decision(None, key, None, envelope.command_id, envelope.reply_to, "redelivered")
            self._check_envelope(envelope, key, known_as, published_at_ms)
            return self._decide(id, message, known_as, published_at_ms)
        except UnknownCommandType as error:
            found: Any = error.fields["envelope"]
            return self._park(id, found, key, payload, published_at_ms, Cannot("unknown_type", error.what))
        except Undecodable as error:
            return self._park(id, None, key, payload, published_at_ms, Cannot("undecodable", error.what))
        except Cannot as cannot:
            return self._park(id, envelope, key, payload, published_at_ms, cannot)

    def _was_decided(self, id: MessageId) -> bool:
        return self._last_id is not None and id <= self._last_id

    def _find_repeat(self, id: MessageId, envelope: CommandEnvelope, known_as: bytes | None) -> Decision | None:
        if known_as is None:
            return None
        number = self._ids.find(known_as)
        if number is None and RESOLVES in envelope.metadata:  # somebody else may have settled the same a moment before
            number = self._ids.find_at_any_time(known_as)
        if number is None:
            return None
        outcome = "redelivered" if self._was_decided(id) else "repeated"
        return Decision(None, "", number, envelope.command_id, envelope.reply_to, outcome)

    def _check_envelope(
        self, envelope: CommandEnvelope, key: str, known_as: bytes | None, published_at_ms: int
    ) -> None:
        aggregate_id = envelope.aggregate_id
        if aggregate_id not in self._cells:  # what stands there has passed these tests
            if (why := why_bad_aggregate_id(aggregate_id)) is not None:
                raise Cannot("bad_id", why)
            if (home := partition_of(aggregate_id, self._partitions)) != self._partition:
                raise Cannot("misrouted", f"this is partition {self._partition}, and the id belongs on {home}")
        if key != aggregate_id:
            raise Cannot("misrouted", "the message's key is not the aggregate's id")
        if known_as is None:
            raise Cannot("bad_command_id", "the command id is not a UUID version 7 in lower case")
        for name, value in (("correlation", envelope.correlation_id), ("causation", envelope.causation_id)):
            if value is not None and not is_uuid(value):
                raise Cannot("undecodable", f"the {name} id is not a UUID in lower case")
        if not 0 <= envelope.issued_at_us <= _TIME_US_MAX:
            raise Cannot("undecodable", "the command's time is not between 1970 and 9999")
        if envelope.metadata:
            _check_settling(envelope.metadata)
        if self._ids.is_expired(known_as, published_at_ms):
            raise Cannot("expired", "the command was published so long after its id was made that it could be a repeat")

    def _decide(self, id: MessageId, message: CommandMessage, known_as: bytes | None, published_at_ms: int) -> Decision:
        envelope = message.envelope
        version, state = self._cells.get(envelope.aggregate_id) or self._seed
        if envelope.expected_version not in (None, version):
            raise Cannot("version_conflict", f"version {envelope.expected_version} was expected, and it is {version}")
        if message.command is None:
            tail = self._commits.nothing(envelope.metadata[RESOLVES])
            commit = self._commit(id, envelope, message.ids_to_time, version, published_at_ms, tail)
            return self._stored(id, envelope, known_as, commit, published_at_ms, "nothing")
        if state is None or self._has_ended(state):
            raise Cannot("ended", f"the aggregate has ended at version {version}: it takes no more commands")
        tail, state, emitted, outcome = self._ask_the_brain(message, version, state)
        commit = self._commit(id, envelope, message.ids_to_time, version, published_at_ms, tail)
        if len(commit) > self._commit_bytes_max:
            raise Cannot("too_large", f"the commit has {len(commit)} bytes; {self._commit_bytes_max} are allowed")
        if emitted:
            self._cells.put(envelope.aggregate_id, version + emitted, None if self._has_ended(state) else state)
        return self._stored(id, envelope, known_as, commit, published_at_ms, outcome, emitted)

    def _has_ended(self, state: Any) -> bool:
        try:
            return self._contract.can_end and bool(state.is_ended())
        except Exception as error:  # as in _ask_the_brain
            raise Cannot("brain_raised", f"is_ended: {what_was_raised(error, type(state))}", error) from error

    def _ask_the_brain(self, message: CommandMessage, version: int, state: Any) -> tuple[bytes, Any, int, str]:
        """The commit's tail, the state after it, how many events it has, its outcome. Raises Cannot if code raises."""
        resolves = message.envelope.metadata.get(RESOLVES)
        try:
            if self._contract.takes_meta:
                outcome = state.execute(message.command, _meta(message.envelope, version))
            else:
                outcome = state.execute(message.command)
            decided = decide(self._contract, outcome)
            if decided.rejection is not None:
                return self._commits.rejected(decided.rejection, resolves), state, 0, "rejected"
            if not decided.events:
                return self._commits.nothing(resolves), state, 0, "nothing"
            state = evolve(state, decided.events)
            return self._commits.accepted(decided.events, resolves), state, len(decided.events), "accepted"
        except Exception as error:  # the domain's code is anybody's: whatever it raises parks this one command
            raise Cannot("brain_raised", what_was_raised(error, type(state)), error) from error

    def _park(
        self,
        id: MessageId,
        envelope: CommandEnvelope | None,
        key: str,
        payload: bytes,
        published_at_ms: int,
        cannot: Cannot,
    ) -> Decision:
        """Make the parked commit. What cannot be read, or must not stand in a column, is left out of the envelope."""
        known_as = None if envelope is None else _known_as(envelope)
        if envelope is not None and (repeat := self._find_repeat(id, envelope, known_as)) is not None:
            return repeat
        if self._was_decided(id):
            return Decision(None, key, None, NIL, None, "redelivered")
        readable = _readable(envelope, key)
        version, _ = self._cells.get(readable.aggregate_id) or self._seed
        detail = cannot.detail.encode(errors="replace").decode()
        resolves = readable.metadata.get(RESOLVES, "")
        parked = Parked.of(cannot.reason, detail, payload)
        tail = self._commits.parked(parked, resolves if is_uuid(resolves) else None)
        commit = self._commit(id, readable, encode_ids_to_time(readable), version, published_at_ms, tail)
        if len(commit) > self._commit_bytes_max:
            readable = CommandEnvelope(readable.aggregate_id, readable.command_id, readable.issued_at_us)
            commit = self._commit(id, readable, encode_ids_to_time(readable), version, published_at_ms, tail)
        stored = self._stored(id, readable, known_as, commit, published_at_ms, "parked")
        return stored._replace(reason=cannot.reason, raised=cannot.raised)

    def _commit(
        self, id: MessageId, envelope: CommandEnvelope, ids_to_time: bytes, version: int, at_ms: int, tail: bytes
    ) -> bytes:
        source = write_place(id, at_ms) + self._incarnation
        return self._commits.encode(self.next_number, self._owner, envelope, version, ids_to_time, source, tail)

    def _stored(
        self,
        id: MessageId,
        envelope: CommandEnvelope,
        known_as: bytes | None,
        commit: bytes,
        published_at_ms: int,
        outcome: str,
        events: int = 0,
    ) -> Decision:
        number = self.next_number
        self._last_id = id
        self.next_number = number + 1
        if known_as is not None:
            self._ids.remember(known_as, number, published_at_ms)
        return Decision(
            commit, envelope.aggregate_id, number, envelope.command_id, envelope.reply_to, outcome, events=events
        )


def _check_settling(metadata: dict[str, str]) -> None:
    """A retry or a drop names what it settles. Whether that was parked is not looked up: whoever sends it did."""
    resolves = metadata.get(RESOLVES)
    if (DROP in metadata or resolves is not None) and not is_uuid(resolves or ""):
        raise Cannot("undecodable", f"the metadata {RESOLVES} is not a UUID in lower case")


def _known_as(envelope: CommandEnvelope) -> bytes | None:
    """What the id window knows the command by; None for an id that is no UUIDv7."""
    return packed(envelope.command_id) if is_uuid7(envelope.command_id) else None


def _meta(envelope: CommandEnvelope, version: int) -> Meta:
    at = time_of(envelope.issued_at_us)
    return Meta(envelope.aggregate_id, version, at, envelope.actor, envelope.correlation_id)


def _readable(envelope: CommandEnvelope | None, key: str) -> CommandEnvelope:
    """The envelope of a parked commit: of the foreign one, only what every reader can take."""
    if envelope is None:
        return CommandEnvelope("" if why_bad_aggregate_id(key) else key, NIL, 0)
    ids = (envelope.correlation_id, envelope.causation_id)
    correlation_id, causation_id = (id if id is not None and is_uuid(id) else None for id in ids)
    return CommandEnvelope(
        "" if why_bad_aggregate_id(envelope.aggregate_id) else envelope.aggregate_id,
        envelope.command_id if is_uuid7(envelope.command_id) else NIL,
        envelope.issued_at_us if 0 <= envelope.issued_at_us <= _TIME_US_MAX else 0,
        correlation_id,
        causation_id,
        envelope.actor,
        None,
        envelope.reply_to,
        envelope.metadata,
        envelope.producer,
        envelope.sequence,
    )
