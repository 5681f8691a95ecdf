"""The projector over a real log and a real engine, each test in a process of its own: an engine is one per process."""

import subprocess
import sys
from pathlib import Path

HEAD = """
import sys
from pathlib import Path
from magnetar.pipelines import Outgoing, SyncClient
from magnetar.pipelines import feeding as module
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.projections.store import Store, embedded_dsn
from tests.unit.pipelines.test_worker import Add, System, Tally, tallies

module.RETRY_SECONDS = 0.0
system = System(Path(sys.argv[1]) / "data")
store = Store(embedded_dsn(system.folder))
make = lambda: Projector(tallies, system.log, store, Settings(data=system.folder), clock=SystemClock())

def drain(projector, rounds=20):
    for _ in range(rounds):
        projector.step()

def send(count):
    list(system.client.send_many(Outgoing(Tally, f"t{n}", Add(1)) for n in range(count)))
    worker = system.worker()
    system.drain(worker)
    worker.close()

send(30)
one = make()
one.prepare()
one.open()
drain(one)
"""

TAKEN_AWAY = """
two = make()
two.open()          # takes every lease away from the first
send(10)
drain(two)
two.close()         # and is gone
send(10)
drain(one)          # notices, takes the leases back, and goes on
rows = store.query("SELECT count(), uniqExact((_partition, _number)) FROM tallies.commits")
events = store.query("SELECT count() FROM tallies.Added")
print(rows[0], events[0])
"""

NOT_WRITTEN_DOWN = """
send(30)
store.command("RENAME TABLE magnetar.pending TO magnetar.away")
drain(one, 3)
lost = {part.partition for part in one._live.lost}
store.command("RENAME TABLE magnetar.away TO magnetar.pending")
drain(one)
rows = store.query("SELECT count(), uniqExact((_partition, _number)) FROM tallies.commits")
events = store.query("SELECT count() FROM tallies.Added")
print(lost == {0, 1}, rows[0], events[0], one._live.lost)
"""

BEATING = """
seen = []
module.TOGETHER = 1
mark = lambda name: seen.append("range") if name == "after_insert" else None
beating = Projector(
    tallies, system.log, store, Settings(data=system.folder),
    clock=SystemClock(), failpoint=mark, beat=lambda: seen.append("beat"),
)
beating.prepare()
beating.open()
send(30)
seen.clear()
beating.step()
print(seen.count("range"), "range,range" in ",".join(seen))
beating.close()
"""

TAIL = """
one.close()
store.close()
system.close()
"""


def said(scenario: str, folder: Path) -> str:
    root = Path(__file__).resolve().parents[3]
    script = f"import sys; sys.path.append({str(root)!r})\n{HEAD}{scenario}{TAIL}"
    command = [sys.executable, "-c", script, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()[-1]


def test_a_projector_that_lost_its_leases_takes_them_back_and_nothing_is_twice_in_a_table(tmp_path: Path) -> None:
    assert said(TAKEN_AWAY, tmp_path) == "(50, 50) (50,)"


def test_ranges_that_could_not_be_written_down_are_not_inserted_and_come_later(tmp_path: Path) -> None:
    assert said(NOT_WRITTEN_DOWN, tmp_path) == "True (60, 60) (60,) []"


def test_each_range_of_a_step_is_a_sign_of_life(tmp_path: Path) -> None:
    assert said(BEATING, tmp_path) == "2 False"
