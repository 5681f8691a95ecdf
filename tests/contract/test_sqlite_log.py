"""The contract, on the embedded log."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Appender, Log
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.schemas import Topic

from tests.contract.backlog_contract import BacklogContract
from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries

HOLD_TRANSACTION = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(600)
"""


class TestSqliteLog(BacklogContract):
    late_landings_impossible_because = "the owner is checked within the transaction that stores"
    unknown_outcomes_impossible_because = "a transaction that was not confirmed is rolled back"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "data"

    @pytest.fixture
    def open_log(self, folder: Path) -> Iterator[Callable[[], Log]]:
        opened: list[SqliteLog] = []

        def open_one() -> Log:
            opened.append(SqliteLog(folder, SystemClock()))
            return opened[-1]

        yield open_one
        for log in opened:
            log.close()

    def land_late(self, log: Log, events: Topic) -> Appender:
        old = log.fence(events, 0, schema=SCHEMA, name="old")
        old.append(entries(10, 11), timeout_seconds=DEADLINE_SECONDS)
        return log.fence(events, 0, schema=SCHEMA, name="new")

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        """A process frozen inside a transaction delays the partition; the error names it."""
        assert isinstance(log, SqliteLog)
        appender = log.fence(events, 0, schema=SCHEMA, name="worker")
        path = log.partition_file(events, 0)
        with subprocess.Popen([sys.executable, "-c", HOLD_TRANSACTION, path], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            os.kill(holder.pid, signal.SIGSTOP)
            try:
                with pytest.raises(Exception, match=f"process {holder.pid} is"):
                    appender.append(entries(5), timeout_seconds=0.3)
                appender.append(entries(5), timeout_seconds=0.3)
            finally:
                holder.kill()

    def reconnect(self, log: Log) -> None:
        """There is no connection that could break."""
