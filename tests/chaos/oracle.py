"""A client that knows what must come out: it asks for many flights at once, and keeps a journal of what it was told.

A flight's commands are asked one after the other, some of them wrong. Whatever became of one unknown is asked again
under the same id, until it is known. What the journal says has been told, stands on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from magnetar.pipelines.logging import configure_logging
from magnetar.pipelines.runtime import StopSignal
from magnetar.pipelines.settings import Settings
from magnetar.schemas import LogUnavailable, OutcomeUnknown, Rejection

from examples.flights.data import Row, commands, rows
from examples.flights.flight import Cancel, Depart, Divert, Flight, Land
from examples.flights.pipeline import flights
from magnetar import Client, MagnetarError, Receipt, new_command_id

ASK_SECONDS = 5.0
"""How long an answer is waited for, by default. Past it, what became of the command is unknown."""


WRONG_SHARE = 0.15
"""Before so many of a flight's commands there comes one that may have to be rejected."""


class Told(NamedTuple):
    """A line of the journal."""

    at_ms: int
    what: str
    """`ok`, `rejected` or `unknown`; `wrong` if it is not what the model says, or an error."""
    command_id: str
    flight: str
    outcome: str = ""
    version: int = -1
    partition: int = -1
    number: int = -1


def read_journal(path: Path) -> list[Told]:
    """All lines that are whole."""
    text = path.read_text() if path.exists() else ""
    return [Told(*json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


class Journal:
    """Lines that are on the disk when `write` returns. Those that come at the same time are flushed together."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._lines: list[bytes] = []
        self._flushed: asyncio.Future[None] | None = None

    async def write(self, told: Told) -> None:
        """Append a line, and wait until it is durable."""
        self._lines.append(json.dumps(told).encode() + b"\n")
        while self._flushed is not None:  # the flush under way may have missed the line
            await asyncio.shield(self._flushed)
            if not self._lines:
                return
        self._flushed = asyncio.get_running_loop().create_future()
        lines, self._lines = self._lines, []
        try:
            await asyncio.to_thread(self._store, b"".join(lines))
        finally:
            self._flushed.set_result(None)
            self._flushed = None

    def _store(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())


class Oracle:
    """Flies one flight after the other, so many of them at once."""

    def __init__(self, client: Client, journal: Journal, random_seed: int, ask_seconds: float) -> None:
        self._client = client
        self._journal = journal
        self._random_seed = random_seed
        self._ask_seconds = ask_seconds
        self.wrong = 0

    async def fly(self, row: Row) -> None:
        """Ask for all that happens to one flight, and compare each answer with the model's."""
        flight, version = Flight(), 0
        for command in self._made(row):
            expected: Any = flight.execute(command)
            command_id = new_command_id()
            if not isinstance(expected, Rejection):
                flight, version = flight.apply(expected), version + 1
            receipt = await self._known(row.id, command, command_id)
            if receipt is None or (receipt.outcome, receipt.version) != (expected, version):
                said = "an error" if receipt is None else f"{receipt.outcome} and {receipt.version}"
                print(f"wrong: {row.id} {command} got {said}, expected {expected} and {version}", flush=True)
                self.wrong += 1
                return

    def _made(self, row: Row) -> Iterator[Any]:
        """The commands of a flight, and now and then one that must be rejected."""
        dice = random.Random(f"{self._random_seed}/{row.id}")
        for sent in commands([row]):
            if dice.random() < WRONG_SHARE:
                yield dice.choice([Depart(row.departs_at), Land("00:00", None), Divert(), Cancel()])
            yield sent.command

    async def _known(self, id: str, command: Any, command_id: str) -> Receipt[Any] | None:
        while True:
            try:
                receipt = await self._client.ask(
                    Flight, id, command, command_id=command_id, timeout_seconds=self._ask_seconds
                )
            except (OutcomeUnknown, LogUnavailable):
                await self._journal.write(Told(_now_ms(), "unknown", command_id, id))
                await asyncio.sleep(0.1)
            except MagnetarError as error:
                await self._journal.write(Told(_now_ms(), "wrong", command_id, id, str(error)))
                return None
            else:
                await self._journal.write(_told(command_id, id, receipt))
                return receipt


def _told(command_id: str, id: str, receipt: Receipt[Any]) -> Told:
    _, _, partition, number = receipt.position.parts()
    what = "rejected" if isinstance(receipt.outcome, Rejection) else "ok"
    return Told(_now_ms(), what, command_id, id, repr(receipt.outcome), receipt.version, partition, number)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def ask_until(
    stopped: StopSignal, oracle: Oracle, chosen: Iterable[Row], *, at_once: int, per_second: float
) -> None:
    """Begin so many flights a second, `at_once` at most; at the end, finish those that were begun."""
    under_way = set[asyncio.Task[None]]()
    for row in chosen:
        if stopped():
            break
        while len(under_way) >= at_once:
            _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        under_way.add(asyncio.create_task(oracle.fly(row)))
        await asyncio.sleep(1 / per_second)
    await asyncio.gather(*under_way)


def main() -> None:
    """Ask until standard input ends."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("role", choices=("oracle",))
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--journal", type=Path, required=True)
    arguments.add_argument("--random-seed", type=int, required=True)
    arguments.add_argument("--ask-seconds", type=float, default=ASK_SECONDS)
    arguments.add_argument("--at-once", type=int, default=300)
    arguments.add_argument("--per-second", type=float, default=60)
    given = arguments.parse_args()
    configure_logging("info", role=given.role)
    stopped = StopSignal(supervised=True)

    async def ask() -> None:
        async with Client(flights, settings=Settings(data=given.data)) as client:
            oracle = Oracle(client, Journal(given.journal), given.random_seed, given.ask_seconds)
            chosen = rows(all_months=True)
            await ask_until(stopped, oracle, chosen, at_once=given.at_once, per_second=given.per_second)
            print(f"done, {oracle.wrong} wrong", flush=True)

    asyncio.run(ask())


if __name__ == "__main__":
    main()
