"""What goes on around a rebuild in these tests: live writes, a reader who remembers, and the command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from magnetar.pipelines import Outgoing, SyncClient
from magnetar.pipelines.carrying_out import asking
from magnetar.pipelines.settings import Settings, load_settings
from magnetar.projections.query import read_endpoint
from magnetar.schemas import MagnetarError

from examples.flights.pipeline import flights
from tests.chaos.processes import DEADLINE_SECONDS, LONG, ROOT, Part, eventually

MAGNETAR = Path(sys.executable).with_name("magnetar")
CHUNK, PAUSE_SECONDS = 50, 0.05
SENT_EVERY_SECONDS = PAUSE_SECONDS if LONG else 0.4
"""A thousand commands a second; in every run, an eighth of it: all that was sent is compared at the end."""


def ask_running(data: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of a query. Waits for whoever has the engine open, and never opens it here: that would lock them out."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        endpoint = load_settings().server() or read_endpoint(data)
        try:
            if endpoint is not None:
                return asking(endpoint)(sql)
        except (httpx.TransportError, json.JSONDecodeError):
            pass  # it has just been killed
        assert time.monotonic() < deadline, f"nobody answers {sql}"
        time.sleep(0.1)


class _Thread(threading.Thread):
    """Does its round again and again, until it is stopped; raises then what it has met."""

    def __init__(self, pause_seconds: float = PAUSE_SECONDS) -> None:
        super().__init__(daemon=True)
        self._pause_seconds = pause_seconds
        self._stop_it = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """The rounds, each so long after the one before it began; later, if the machine does not go along."""
        next_at = time.monotonic()
        try:
            while not self._stop_it.is_set():
                self.round()
                next_at = max(next_at + self._pause_seconds, time.monotonic())
                self._stop_it.wait(next_at - time.monotonic())
        except BaseException as error:  # noqa: BLE001 - raised where it is stopped
            self._error = error

    def round(self) -> None:
        """One round."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop, and raise what went wrong."""
        self._stop_it.set()
        self.join()
        if self._error is not None:
            raise self._error


class Sender(_Thread):
    """Sends commands, as far as the machine goes along."""

    def __init__(
        self, settings: Settings, commands: Iterator[Outgoing], *, pause_seconds: float = SENT_EVERY_SECONDS
    ) -> None:
        super().__init__(pause_seconds)
        self.sent = 0
        self._settings = settings
        self._commands = commands

    def run(self) -> None:
        """With a client of its own."""
        began = time.monotonic()
        with SyncClient(flights, settings=self._settings) as self._client:
            super().run()
        print(f"{self.sent} commands sent, {self.sent / (time.monotonic() - began):,.0f} a second")

    def round(self) -> None:
        """So many commands."""
        self.sent += sum(self._client.send_many(islice(self._commands, CHUNK)))


class Reader(_Thread):
    """Asks the views again and again, and remembers what it has seen: what it saw once, it sees for ever."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.answers = 0
        self._data = data
        self._seen: dict[str, int] = {}

    def round(self) -> None:
        """How far commits and events are; whoever is asked may be killed meanwhile."""
        for view in ("flights.commits", "flights.flight__events"):
            sql = f"SELECT _partition AS p, max(_number) AS n FROM {view} GROUP BY p"
            if view.endswith("events"):
                sql = sql.replace("_partition", "partition").replace("_number", "number")
            if (answer := self._ask(sql)) is not None:
                self.answers += 1
                self._compare(view, {f"{view} {row['p']}": int(row["n"]) for row in answer})

    def _compare(self, view: str, now: dict[str, int]) -> None:
        for key, seen in self._seen.items():
            if key.startswith(view) and now.get(key, 0) < seen:
                self.lost.append(f"{key}: {seen}, then {now.get(key)}")
        self._seen.update(now)

    def _ask(self, sql: str) -> list[dict[str, Any]] | None:
        endpoint = load_settings().server() or read_endpoint(self._data)
        if endpoint is None:
            return None
        try:
            return asking(endpoint)(sql)
        except (httpx.TransportError, MagnetarError, json.JSONDecodeError):
            return None


class Rebuilding:
    """Those who read, write and command while tables are rebuilt; the stage says who runs besides."""

    def __init__(
        self, data: Path, sender: Sender, *them: Part, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`environment` says to the commands where log and tables are, if they are not in the data folder."""
        self.data, self.sender, self.reader = data, sender, Reader(data)
        self._them = them
        self._environment = environment
        self._commands: list[Command] = []

    def eventually(self, holds: Callable[[], object], what: str) -> None:
        """Wait."""
        eventually(holds, what, *self._them)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return ask_running(self.data, sql)

    def rows_of(self, table: str) -> int:
        """How many a table has."""
        return int(self.ask(f"SELECT count() AS n FROM {table}")[0]["n"])

    def has(self, table: str, rows: int) -> bool:
        """Whether a table has that many."""
        return self.rows_of(table) >= rows

    def command(self, *options: str) -> Command:
        """`magnetar rebuild`, in a second terminal."""
        self._commands.append(Command(self.data, self._environment, *options))
        return self._commands[-1]

    def carry_through(self, command: Command) -> None:
        """Wait until the command has ended, and has done it."""
        self.eventually(command.is_over, "the command ends")
        code, output = command.result()
        print(output)
        assert code == 0

    def close(self) -> None:
        """End the threads and the commands."""
        for command in self._commands:
            command.result()
        for each in (self.sender, self.reader):
            if each.is_alive():
                each.stop()


class Command:
    """`magnetar rebuild` in a second terminal."""

    def __init__(self, data: Path, environment: Mapping[str, str], *options: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAGNETAR_")}
        arguments = ["rebuild", "examples.flights.pipeline", "--data", str(data), *options]
        self._output = ""
        self._process = subprocess.Popen(
            [MAGNETAR, *arguments],
            cwd=ROOT,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.result()

    def result(self) -> tuple[int, str]:
        """Its exit code and what it printed, when it has ended; it is killed if it has not."""
        if not self.is_over():
            self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._output = self._process.communicate()[0]
        return self._process.returncode, self._output
