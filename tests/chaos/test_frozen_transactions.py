"""Processes frozen between BEGIN IMMEDIATE and COMMIT: named, waited for by as little as possible, and harmless."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs import sqlite_files
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.schemas import LogUnavailable, partition_of

from examples.flights.data import rows
from examples.flights.pipeline import flights
from tests.chaos.comparing import COMMANDS, false_replies, registry, stored, wrong_in_history
from tests.chaos.processes import Part, eventually, parts
from tests.chaos.sending import Asking

pytestmark = pytest.mark.xdist_group("frozen")
BOTH_ENDS = pytest.mark.parametrize("end", [SIGKILL, SIGCONT])


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """A client, and the folder of its log."""
    asking = Asking(tmp_path / "data")
    yield asking
    asking.close()


def check_all(asking: Asking) -> None:
    """The log is what its commands make of it, the client was told nothing else, and every file is whole."""
    logs = stored(asking.data)
    assert wrong_in_history(logs) == []
    assert false_replies(asking.hear(), logs) == []
    for path in asking.data.rglob("*.sqlite"):
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path


@BOTH_ENDS
def test_a_worker_frozen_while_it_appends_is_named_and_holds_up_its_partition_alone(
    asking: Asking, end: Signals
) -> None:
    flights = rows(all_months=False)
    asking.send(islice(flights, 300))
    frozen = Part(asking.data.parent, "worker", "--at", "in_log_transaction:4:STOP", name="frozen")
    healthy = Part(asking.data.parent, "worker", name="healthy")
    with parts(frozen, healthy):
        frozen.start()
        eventually(frozen.is_frozen, "it freezes", frozen)
        healthy.start()
        named = re.compile(rf"/([0-9]+)\.sqlite is locked: process {frozen.pid} is in the middle of a transaction")
        eventually(lambda: named.search(healthy.output), "the error names the process", healthy)
        (stuck,) = {int(partition) for partition in named.findall(healthy.output)}
        eventually(lambda: asking.undecided() == {stuck}, "the other partitions go on", healthy)
        asking.send(islice(flights, 300))
        eventually(lambda: asking.undecided() == {stuck}, "and on", healthy)
        frozen.send(end)
        eventually(asking.is_done, "all goes on", healthy)
    check_all(asking)


@BOTH_ENDS
def test_while_a_worker_is_frozen_in_the_registry_the_others_keep_their_partitions(
    asking: Asking, end: Signals
) -> None:
    flights = rows(all_months=False)
    frozen = Part(asking.data.parent, "worker", "--at", "in_registry_transaction:6:STOP", name="a-frozen")
    healthy = Part(asking.data.parent, "worker", name="healthy")
    with parts(frozen, healthy):
        healthy.start()
        eventually(lambda: registry(asking.data, "SELECT name FROM consumers"), "it takes part", healthy)
        frozen.start()
        eventually(frozen.is_frozen, "it freezes", frozen)
        asking.send(islice(flights, 300))
        evens = set(range(0, 16, 2))  # of two consumers, the first by name has them
        eventually(lambda: asking.undecided() <= evens, "the other worker decides what is its own", healthy)
        eventually(lambda: f"process {frozen.pid} is in the middle" in healthy.output, "the error names it", healthy)
        asking.send(islice(flights, 300))
        eventually(lambda: asking.undecided() <= evens, "and goes on, signs of life or not", healthy)
        assert asking.undecided()
        with pytest.raises(LogUnavailable, match=f"process {frozen.pid} is in the middle of a transaction"):
            asking.log.consumer(COMMANDS, name="newcomer")
        frozen.send(end)
        eventually(asking.is_done, "all is decided", frozen, healthy)
        assert healthy.lives == 1
        assert not healthy.is_dead()
    check_all(asking)


@BOTH_ENDS
def test_a_client_frozen_while_it_publishes_holds_up_its_partition_for_clients_and_not_for_workers(
    asking: Asking, end: Signals
) -> None:
    entries = asking.entries(islice(rows(all_months=False), 50, 350))
    frozen = Part(asking.data.parent, "client", "--at", "in_log_transaction:1:STOP")
    worker = Part(asking.data.parent, "worker")
    stuck = partition_of(next(rows(all_months=False)).id, flights.partitions)
    with parts(frozen, worker):
        frozen.start()
        eventually(frozen.is_frozen, "it freezes", frozen)
        worker.start()
        with pytest.raises(LogUnavailable, match=rf"/{stuck}\.sqlite is locked: process {frozen.pid} is in the middle"):
            asking.publisher.publish(stuck, entries[stuck], timeout_seconds=0.3)
        for partition in set(entries) - {stuck}:
            asking.publisher.publish(partition, entries[partition], timeout_seconds=60)
        eventually(asking.is_done, "what was published is decided", worker)
        frozen.send(end)
        asking.publisher.publish(stuck, entries[stuck], timeout_seconds=60)
        eventually(asking.is_done, "all is decided", worker)
    check_all(asking)


def test_a_process_frozen_while_it_creates_topics_is_named(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_files, "_PROVISION_TIMEOUT_SECONDS", 0.3)
    hold = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    marker = asking.data / "magnetar.json"
    with subprocess.Popen(
        [sys.executable, "-c", hold, marker], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(SIGSTOP)
        try:
            with pytest.raises(LogUnavailable, match=f"process {holder.pid} is creating a topic"):
                provision(flights, asking.log)
        finally:
            holder.kill()
    provision(flights, SqliteLog(asking.data, SystemClock()))
