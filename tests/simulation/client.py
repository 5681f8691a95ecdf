"""A client of the simulation: sends commands and things that are none, and asks again for what was not answered."""

from __future__ import annotations

import contextlib
import random
from typing import Final, NamedTuple

from magnetar.pipelines.log import Entry
from magnetar.schemas import Command, OutcomeUnknown, Topic, TopicKind, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope, read_envelope

from tests.simulation.account import SCHEMA, UNLUCKY, Deposit, Withdraw
from tests.simulation.sim_log import SimLog
from tests.simulation.stage import Stage

PARTITIONS: Final = 2
COMMANDS: Final = Topic("sim", "Account", TopicKind.COMMANDS)
EVENTS: Final = Topic("sim", "Account", TopicKind.EVENTS)
CHECKPOINTS: Final = Topic("sim", "Account", TopicKind.CHECKPOINTS)
ACCOUNTS: Final = ("anna", "bert", "cleo", "dora")
AMOUNTS: Final = (1, 2, 5, 8, 0, UNLUCKY)
REPLY_TIMEOUT_SECONDS: Final = 0.03
KINDS: Final = 20
CODEC: Final = CommandCodec(SCHEMA)


class Sent(NamedTuple):
    """A message for a command topic. `asked` is the command's id if an answer can be expected."""

    partition: int
    entry: Entry
    asked: str | None


class Client:
    """One client process."""

    def __init__(self, stage: Stage, log: SimLog, name: str) -> None:
        self._stage = stage
        self._publisher = log.publisher(COMMANDS, schema=SCHEMA.command_json)
        self._ids = random.Random(name)
        self.inbox = log.inbox()
        self.sent: dict[str, Sent] = {}
        self.answered = 0

    def run(self) -> None:
        """What the process does, for ever."""
        recent: list[Sent] = []
        while True:
            for _ in range(1 + self._stage.pick("how many more", 4)):
                recent.append(self._compose())
                self.publish(recent[-1])
            self.inbox.receive(timeout_seconds=REPLY_TIMEOUT_SECONDS)
            if self._stage.pick("repeat", 3):
                self.publish(recent[-1 - self._stage.pick("which", min(6, len(recent)))])

    def publish(self, sent: Sent) -> None:
        """Send it; nobody waits for what is unknown."""
        if sent.asked is not None:
            self.sent[sent.asked] = sent
        with contextlib.suppress(OutcomeUnknown):
            self._publisher.publish(sent.partition, [sent.entry], timeout_seconds=1)

    def _compose(self) -> Sent:
        id = ACCOUNTS[self._stage.pick("account", len(ACCOUNTS))]
        amount = AMOUNTS[self._stage.pick("amount", len(AMOUNTS))]
        command = Withdraw(amount) if self._stage.pick("withdraw", 2) else Deposit(amount)
        match self._stage.pick("kind", KINDS):
            case 1:
                return Sent(partition_of(id, PARTITIONS), Entry(id, b"junk"), None)
            case 2:
                return self._message(id, command, partition=1 - partition_of(id, PARTITIONS))
            case 3:
                return self._message(id, command, key="somebody else")
            case 4:
                return self._message(id, command, command_id="no uuid")
            case 5:
                return self._message(id, command, expected_version=self._stage.pick("version", 4))
            case 6:
                return self._message(id, command, made_ms=self._stage.ms - 11 * 60 * 1000)
            case 7:
                return self._unknown_type(id, command)
            case _:
                return self._message(id, command)

    def _message(
        self,
        id: str,
        command: Command,
        *,
        partition: int | None = None,
        key: str | None = None,
        command_id: str | None = None,
        expected_version: int | None = None,
        made_ms: int | None = None,
    ) -> Sent:
        made_id = uuid7(made_ms or self._stage.ms, self._ids.getrandbits(74))
        envelope = CommandEnvelope(
            id,
            command_id or made_id,
            self._stage.ms * 1000,
            expected_version=expected_version,
            reply_to=self.inbox.address,
        )
        entry = Entry(id if key is None else key, CODEC.encode(envelope, command))
        home = partition_of(id, PARTITIONS) if partition is None else partition
        return Sent(home, entry, None if command_id else made_id)

    def _unknown_type(self, id: str, command: Command) -> Sent:
        """A command of a type that only newer code knows: the same message with 9 as the number of its type."""
        sent = self._message(id, command)
        _, _, at = read_envelope(sent.entry.payload)
        return sent._replace(entry=Entry(id, sent.entry.payload[:at] + b"\x12" + sent.entry.payload[at + 1 :]))
