"""What must hold after every run, judged by the read rule and a pure fold: nothing here knows the worker."""

from __future__ import annotations

from collections import Counter
from typing import Any

from magnetar.aggregates.decide import decide
from magnetar.pipelines.reply import Reply
from magnetar.schemas import MessageId, Undecodable
from magnetar.schemas.command_message import CommandCodec, CommandMessage
from magnetar.schemas.commit import Commit, CommitCodec
from magnetar.schemas.routing import partition_of

from tests.simulation.domain import CONTRACT, SCHEMA, Tally
from tests.simulation.scheduler import COMMANDS, EVENTS, PARTITIONS, Simulation

COMMITS, COMMAND_CODEC = CommitCodec(SCHEMA), CommandCodec(SCHEMA)


def violations(simulation: Simulation) -> list[str]:
    """All that is wrong with what a run has left behind."""
    found = list(simulation.errors)
    for partition in range(PARTITIONS):
        payloads = fold_of(simulation, partition)
        commits = [COMMITS.decode(payload) for payload in payloads]
        found += numbers(partition, commits)
        found += one_commit_each(simulation, partition, commits)
        found += one_history(simulation, partition, commits)
        if simulation.store.rows.get(partition, []) != payloads:
            found.append(
                f"partition {partition}: the mirror's rows are not the commits that count, each once, in order"
            )
    return found + replies(simulation)


def fold_of(simulation: Simulation, partition: int) -> list[bytes]:
    """The commits that count, by the read rule, which is written down here once more on purpose."""
    owner, expected, found = b"", 1, []
    for message in simulation.broker.topic(EVENTS).partitions[partition].messages:
        commit = COMMITS.decode(message.payload)
        if commit.number == 0:
            owner = commit.owner
        elif commit.owner == owner and commit.number == expected:
            expected += 1
            found.append(message.payload)
        elif commit.owner == owner and commit.number > expected:
            owner = b""
    return found


def numbers(partition: int, commits: list[Commit]) -> list[str]:
    """Contiguous from 1."""
    have = [commit.number for commit in commits]
    return [] if have == list(range(1, len(have) + 1)) else [f"partition {partition}: the numbers are {have}"]


def one_commit_each(simulation: Simulation, partition: int, commits: list[Commit]) -> list[str]:
    """Each command message has one commit, or is a repeat of an id that has one."""
    sources = Counter(commit.source.id for commit in commits)
    found = [f"partition {partition}: {n} commits of the command at {id.ledger}" for id, n in sources.items() if n > 1]
    ids = Counter(commit.command_id for commit in commits if not commit.command_id.startswith("00000000"))
    found += [f"partition {partition}: {n} commits of command {id}" for id, n in ids.items() if n > 1]
    for message in simulation.broker.topic(COMMANDS).partitions[partition].messages:
        decoded = decoded_or_none(message.payload)
        is_repeat = decoded is not None and decoded.envelope.command_id in ids
        if message.id not in sources and not is_repeat:
            found.append(f"partition {partition}: the command at {message.id.ledger} was lost")
    return found


def decoded_or_none(payload: bytes) -> CommandMessage | None:
    """A command message, or None if it is none."""
    try:
        return COMMAND_CODEC.decode(payload)
    except Undecodable:
        return None


def one_history(simulation: Simulation, partition: int, commits: list[Commit]) -> list[str]:
    """Each outcome is what the pure functions give at its place, and versions are contiguous."""
    commands = {m.id: m for m in simulation.broker.topic(COMMANDS).partitions[partition].messages}
    states: dict[str, tuple[int, Any]] = {}
    found: list[str] = []
    last = MessageId(0)
    for commit in commits:
        if commit.source.id <= last:
            found.append(
                f"partition {partition}: commit {commit.number} goes back to the command at {commit.source.id}"
            )
        last = commit.source.id
        message = decoded_or_none(commands[commit.source.id].payload)
        if message is None or partition_of(message.envelope.aggregate_id, PARTITIONS) != partition:
            if commit.parked is None:
                found.append(f"partition {partition}: commit {commit.number} should be parked")
            continue
        version, state = states.get(commit.aggregate_id, (0, Tally()))
        expected = outcome_of(state, message.command)
        if (commit.version, commit.outcome, commit.events, commit.rejection) != (version, *expected):
            found.append(f"partition {partition}: commit {commit.number} is {commit}, expected {version} {expected}")
        for event in commit.events:
            version, state = version + 1, state.apply(event)
        states[commit.aggregate_id] = (version, state)
    return found


def outcome_of(state: Any, command: Any) -> tuple[str, tuple[Any, ...], Any]:
    """Outcome, events and rejection, as the domain alone gives them."""
    try:
        decided = decide(CONTRACT, state.execute(command))
    except RuntimeError:
        return "parked", (), None
    if decided.rejection is not None:
        return "rejected", (), decided.rejection
    return ("accepted" if decided.events else "nothing"), decided.events, None


def replies(simulation: Simulation) -> list[str]:
    """Whatever was replied is a commit that counts."""
    counting = {p: set(fold_of(simulation, p)) for p in range(PARTITIONS)}
    got = [Reply.decode(payload) for payload in simulation.broker.inboxes[simulation.inbox.address]]
    return [
        f"partition {reply.partition}: a reply says {COMMITS.decode(reply.commit)}, which does not count"
        for reply in got
        if reply.commit not in counting[reply.partition]
    ]
