"""What must hold after every run. The log of events is a pure function of the log of commands; here it is.

Nothing here knows the worker, and the read rule is written down once more, on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from magnetar.aggregates import contract_of
from magnetar.aggregates.decide import decide
from magnetar.pipelines.log import Message
from magnetar.pipelines.reply import Reply
from magnetar.schemas import Meta, Undecodable, is_uuid7, made_at_ms, partition_of
from magnetar.schemas.command_message import CommandMessage, UnknownCommandType
from magnetar.schemas.commit import Commit, CommitCodec, read_command_id, read_head

from tests.counting import counting
from tests.simulation.account import RELEASES, SCHEMAS, Account, NewerAccount
from tests.simulation.client import CODEC, COMMANDS, EVENTS, PARTITIONS, Client, Sent
from tests.simulation.sim_store import TABLES
from tests.simulation.sim_tables import Ledger

if TYPE_CHECKING:
    from tests.simulation.world import World

Row: TypeAlias = tuple[str, int, int, int, int]
"""Id, version, commit, and two fields."""
COMMITS = [CommitCodec(schema) for schema in SCHEMAS]
NO_ID = "00000000-0000-0000-0000-000000000000"
WINDOW_MS = 600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Expected(NamedTuple):
    """What the commit of a command has to say."""

    source: int
    command_id: str
    aggregate_id: str
    version: int
    outcome: str
    detail: Any
    """The events, the rejection, or the reason for parking."""


def violations(world: World) -> list[str]:
    """All that is wrong with what a run has left behind."""
    found = list(world.errors)
    for partition in range(PARTITIONS):
        messages = counting(world.broker.topic(EVENTS).partitions[partition].messages)
        commands = world.broker.topic(COMMANDS).partitions[partition].messages
        expected = list(expected_log(partition, commands, [RELEASES[m.schema - 1] for m in messages]))
        found += compared(partition, [decoded(m.schema, m.payload) for m in messages], expected)
        if world.mirrored:
            found += mirrored(world, partition, [(m.schema, m.payload) for m in messages])
        for kind in world.tables:
            found += told_too_much(world, kind, partition)
            if lacking(world, kind, partition):
                found.append(difference(world, kind, partition))
    return found + false_replies(world)


def decoded(schema: int, payload: bytes) -> Commit:
    """The commit in a message that was written with this schema."""
    return COMMITS[schema - 1].decode(payload)


def expected_log(partition: int, commands: Sequence[Message], releases: Sequence[type[Account]]) -> Iterator[Expected]:
    """One commit per command in the order of their topic, but none for a repeated id.

    `releases` says whose brain decided each.
    """
    deciders = iter(releases)
    ids: set[str] = set()
    accounts: dict[str, tuple[int, NewerAccount]] = {}
    for message in commands:
        command_id, aggregate_id, reason, command = read(partition, message)
        if command_id in ids:
            continue
        if command_id != NO_ID:
            ids.add(command_id)
        version, account = accounts.get(aggregate_id, (0, NewerAccount()))
        decider = next(deciders, Account)
        if command is None or reason is not None:
            yield Expected(message.id.ledger, command_id, aggregate_id, version, "parked", reason)
            continue
        outcome, detail = executed(decider(account.balance), version, command)
        yield Expected(message.id.ledger, command_id, aggregate_id, version, outcome, detail)
        if outcome == "accepted":
            for event in detail:
                account = account.apply(event)
            accounts[aggregate_id] = (version + len(detail), account)


def read(partition: int, message: Message) -> tuple[str, str, str | None, CommandMessage | None]:
    """Command id, aggregate id, why it has to be parked before anybody decides, and the decoded command."""
    try:
        command = CODEC.decode(message.payload)
    except UnknownCommandType as error:
        envelope: Any = error.fields["envelope"]
        return envelope.command_id, envelope.aggregate_id, "unknown_type", None
    except Undecodable:
        return NO_ID, message.key, "undecodable", None
    envelope = command.envelope
    command_id, reason = envelope.command_id, None
    if partition_of(envelope.aggregate_id, PARTITIONS) != partition or message.key != envelope.aggregate_id:
        reason = "misrouted"
    elif not is_uuid7(command_id):
        reason = "bad_command_id"
    elif message.published_at_ms - made_at_ms(command_id) > WINDOW_MS:
        reason = "expired"
    return command_id if is_uuid7(command_id) else NO_ID, envelope.aggregate_id, reason, command


def executed(account: Account, version: int, message: CommandMessage) -> tuple[str, Any]:
    """Outcome and detail, as the domain alone gives them."""
    envelope = message.envelope
    if envelope.expected_version not in (None, version):
        return "parked", "version_conflict"
    at = EPOCH + timedelta(microseconds=envelope.issued_at_us)
    try:
        decided = decide(
            contract_of(type(account)), account.execute(message.command, Meta(envelope.aggregate_id, version, at))
        )
    except RuntimeError:
        return "parked", "brain_raised"
    if decided.rejection is not None:
        return "rejected", decided.rejection
    return ("accepted", decided.events) if decided.events else ("nothing", None)


def told(commit: Commit) -> Expected:
    """What a commit says."""
    detail = commit.events or commit.rejection or (commit.parked.reason if commit.parked else None)
    source = commit.source.id.ledger
    return Expected(source, commit.command_id, commit.aggregate_id, commit.version, commit.outcome, detail)


def retold(reply: Reply) -> str:
    """What a reply says, as far as it can be read."""
    try:
        return str(told(decoded(reply.schema, reply.commit)))
    except Undecodable as error:
        return f"something of schema {reply.schema} that is none ({error})"


def compared(partition: int, commits: list[Commit], expected: list[Expected]) -> list[str]:
    """The first difference between the log and what it has to be, in words."""
    numbers = [commit.number for commit in commits]
    if numbers != list(range(1, len(numbers) + 1)):
        return [f"partition {partition}: the numbers are not contiguous: {numbers}"]
    sources = Counter(commit.source.id.ledger for commit in commits)
    ids = Counter(commit.command_id for commit in commits if commit.command_id != NO_ID)
    found = [f"partition {partition}: the command at {at} has {n} commits" for at, n in sources.items() if n > 1]
    found += [f"partition {partition}: command {id} has {n} commits" for id, n in ids.items() if n > 1]
    lost = [each for each in expected if each.source not in sources]
    found += [f"partition {partition}: the command at {each.source} is lost: {each}" for each in lost]
    if not found:
        for number, (commit, wanted) in enumerate(zip(commits, expected, strict=False), 1):
            if told(commit) != wanted:
                return [f"partition {partition}: commit {number} says {told(commit)}; one history gives {wanted}"]
        if len(commits) > len(expected):
            return [
                f"partition {partition}: commit {len(expected) + 1} is of no command: {told(commits[len(expected)])}"
            ]
    return found


def mirrored(world: World, partition: int, payloads: list[tuple[int, bytes]]) -> list[str]:
    """Each table has each commit exactly once, and nothing else."""
    found = [
        f"partition {partition}: commits up to {n} were told to be there"
        for p, n in world.store.told_too_much
        if p == partition
    ]
    for table in TABLES:
        rows, wanted = Counter(world.store.rows.get((partition, table), ())), Counter(payloads)
        missing, extra = wanted - rows, rows - wanted
        for what, payload_counts in (("lacks", missing), ("has without reason", extra)):
            numbers = sorted(read_head(payload)[0] for _, payload in payload_counts.elements())
            if numbers:
                found.append(f"partition {partition}: table {table} {what} commits {numbers}")
    return found


def lacking(world: World, kind: type[Any], partition: int) -> bool:
    """Whether the table has not exactly what a fold of the log gives."""
    return rows_of(world, kind, partition) != expected_rows(world, kind, partition)


def difference(world: World, kind: type[Any], partition: int) -> str:
    """What it lacks, and what it has without reason."""
    rows, wanted = rows_of(world, kind, partition), expected_rows(world, kind, partition)
    return (
        f"partition {partition}: the table of {kind.__name__} lacks {sorted((wanted - rows).elements())} and has "
        f"without reason {sorted((rows - wanted).elements())}"
    )


def rows_of(world: World, kind: type[Any], partition: int) -> Counter[Row]:
    """What stands in the table: id, version, commit and fields of each row; of a fold, as `FINAL` gives it."""
    store = world.tables[kind]
    if kind is Ledger:
        found = [row for row in store.newest(partition).values() if not row[4]]
    else:
        found = store.table(partition)
    return Counter((row[0], row[1], row[3], row[-2], row[-1]) for row in found)


def expected_rows(world: World, kind: type[Any], partition: int) -> Counter[Row]:
    """The same from the log, by other code than the product's and the projection's."""
    rows, ledgers = list[Row](), dict[str, Row]()
    for id, version, number, event in events_of(world, partition):
        name, amount = type(event).__name__, getattr(event, "amount", 1)
        balance = getattr(event, "balance", 0)
        signed = amount if name == "Deposited" else -amount
        if name != "FeeCharged":
            parts = (5, amount - 5) if name == "Deposited" and amount > 5 else (signed,)
            rows += [(id, version, number, part, balance) for part in parts]
        _, _, _, total, entries = ledgers.get(id, (id, 0, 0, 0, 0))
        if name == "Emptied" or (name == "Withdrawn" and not balance):
            ledgers.pop(id, None)
        else:
            ledgers[id] = (id, version, number, total + signed, entries + 1)
    return Counter(ledgers.values() if kind is Ledger else rows)


def events_of(world: World, partition: int) -> Iterator[tuple[str, int, int, Any]]:
    """Of each event that counts: the account, its version, the number of its commit, and itself."""
    for message in counting(world.broker.topic(EVENTS).partitions[partition].messages):
        commit = decoded(message.schema, message.payload)
        for nth, event in enumerate(commit.events, 1):
            yield commit.aggregate_id, commit.version + nth, commit.number, event


def told_too_much(world: World, kind: type[Any], partition: int) -> list[str]:
    """Whatever was told to be in a table was there: of a fold, at least the newest event of each key."""
    found = list[str]()
    for of, number, there in world.tables[kind].told:
        if of != partition:
            continue
        reached = dict[str, int]()
        for id, version in there:
            reached[id] = max(version, reached.get(id, 0))
        for id, version, at, event in events_of(world, partition):
            if at <= number and type(event).__name__ != "FeeCharged" and reached.get(id, 0) < version:
                found.append(f"partition {partition}: {kind.__name__} was told to have commits up to {number}")
                break
    return found


def false_replies(world: World) -> list[str]:
    """Whatever a client was told is a commit that counts."""
    partitions = world.broker.topic(EVENTS).partitions
    logs = [{(m.schema, m.payload) for m in counting(p.messages)} for p in partitions]
    replies = {Reply.decode(payload) for _, payload in world.broker.replies}
    return [
        f"partition {reply.partition}: a client was told {retold(reply)}, which does not count"
        for reply in sorted(replies)
        if (reply.schema, reply.commit) not in logs[reply.partition]
    ]


def unanswered(world: World) -> list[tuple[Client, Sent]]:
    """What clients have sent with an id of their own and were never told anything about."""
    answers = {(address, read_command_id(Reply.decode(payload).commit)) for address, payload in world.broker.replies}
    return [
        (client, sent)
        for client in world.clients
        for id, sent in client.sent.items()
        if (client.inbox.address, id) not in answers
    ]
