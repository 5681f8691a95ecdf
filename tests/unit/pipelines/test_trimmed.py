"""A log whose start is gone, as when somebody gave its topics a retention."""

import sqlite3
from pathlib import Path

from magnetar.pipelines.log_start import begins_at
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.schemas import PartitionRefused, Topic
from magnetar.schemas.commit import read_head

from tests.unit.pipelines.test_rebuild import run
from tests.unit.pipelines.test_worker import EVENTS, HOME, Add, System, Tally


def trim(log: SqliteLog, topic: Topic, partition: int, *, keep: int) -> int:
    """Remove all messages but the last ones; the number of the first commit that is left."""
    with sqlite3.connect(log.partition_file(topic, partition)) as connection:
        connection.execute(
            "DELETE FROM messages WHERE offset <= (SELECT max(offset) FROM messages) - ?", (keep,)
        )  # as a broker does that drops old ledgers
        (payload,) = connection.execute("SELECT payload FROM messages ORDER BY offset LIMIT 1").fetchone()
    connection.close()
    return read_head(payload)[0]


TRIMMED = """
from pathlib import Path
from structlog.testing import capture_logs
from magnetar.pipelines.wishes import Wish
from magnetar.projections.generations import Origin
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.diffing import Wanted, diff
from magnetar.pipelines.clock import SystemClock
from magnetar.schemas import MagnetarError, Topic, TopicKind
from magnetar import Pipeline, Rows
from tests.unit.pipelines.boards import Board1, Flight, Planned, Running, Scheduled, pipeline
from tests.unit.pipelines.test_trimmed import trim

running = Running(Path(sys.argv[1]))
ids = [f"flight-{n:02d}" for n in range(40)]
running.schedule(*ids[:30])
running.projector(Board1).close()
running.schedule(*ids[30:32])
running.projector(Board1).close()  # its last range is a short one, which the log has still
numbers = [trim(running.log, Topic("flights", "Flight", TopicKind.EVENTS), p, keep=5) for p in range(2)]
assert min(numbers) > 2, numbers

# What is there goes on, also when it is started anew.
running.schedule(*ids[32:])
projector = running.projector(Board1)
assert not projector.lost, projector.lost
assert running.rows("_id") == [(id,) for id in ids]

# New tables are not begun.
try:
    projector.wish(Wish.REBUILD, ["Board"])
except MagnetarError as error:
    print(type(error).__name__, error)
else:
    raise AssertionError("a rebuild was begun")
assert running.rows("_id") == [(id,) for id in ids]

# The mirror has what is gone.
projector.wish(Wish.REBUILD, ["Board"], Origin.MIRROR)
while projector.step() or running.store.query("SELECT count() FROM system.tables WHERE name = 'board__g2'") == [(0,)]:
    pass
(shown,) = running.store.query("SELECT as_select FROM system.tables WHERE name = 'board'")
assert "board__g2" in shown[0], shown
assert running.rows("_id") == [(id,) for id in ids]
projector.close()

# A projection that is new says why it stays empty, and the others go on.
class Routes(Rows):
    origin: str
    @classmethod
    def project(cls, event: Scheduled):
        yield cls(event.origin)

with capture_logs() as logs:
    made = Projector(Pipeline("flights", aggregates=[Flight], projections=[Planned, Board1, Routes], partitions=2),
        running.log, running.store, running.settings, clock=SystemClock())
    made.prepare()
    made.open()
    while made.step():
        pass
lost = [each for each in logs if each["event"] == "partition lost"]
assert {(each["projection"], each["partition"]) for each in lost} == {("Routes", 0), ("Routes", 1)}, lost
print(lost[0]["what"])
assert made.lost
assert running.rows("_id") == [(id,) for id in ids]
made.close()
running.close()
print("done")
"""


def test_tables_that_are_filled_go_on_and_no_new_ones_can_be_filled(tmp_path: Path) -> None:
    said = run(TRIMMED, tmp_path)
    assert "done" in said
    assert "LogUnavailable flights/flight-events partition 0 begins with commit" in said
    assert "those before it are gone, so that no table can be filled from it" in said


def test_a_worker_without_a_checkpoint_does_not_decide_on_states_that_nobody_knows(tmp_path: Path) -> None:
    system = System(tmp_path)
    first = system.worker()
    for _ in range(5):
        system.client.send(Tally, "a", Add(1))
    system.drain(first)
    first.close()
    number = trim(system.log, EVENTS, HOME, keep=2)
    assert (begins_at(system.log, EVENTS, HOME), begins_at(system.log, EVENTS, 1 - HOME)) == (number, None)
    worker = system.worker()
    system.client.send(Tally, "a", Add(1))
    system.drain(worker)
    assert isinstance(worker.refused[HOME], PartitionRefused)
    assert f"begins with commit {number}, and no checkpoint has what was before it" in worker.refused[HOME].what
