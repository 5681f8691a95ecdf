"""Projections whose code has changed: what is shown meanwhile, and what a rebuild makes of it."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

CHANGED = """
from pathlib import Path
from magnetar.pipelines.rebuild_status import changed, generations_of, statuses
from magnetar.pipelines.wishes import Wish
from prometheus_client import REGISTRY
from tests.unit.pipelines.boards import Board1, Board2, Board3, Running, pipeline

def fed(projection):
    labels = {"context": "flights", "projection": projection, "aggregate": "Flight"}
    return REGISTRY.get_sample_value("magnetar_table_partitions_fed", labels)

def states(board):
    found = statuses(running.store.rows, pipeline(board), ["Flight", "Planned", "Board"])
    return [(each.table, each.generation, each.state, each.commits, each.rows) for each in found]

running = Running(Path(sys.argv[1]))
running.schedule("a", "b")
running.projector(Board1).close()
assert running.rows("_id, status") == [("a", "Scheduled"), ("b", "Scheduled")]
assert running.rows("flight", "planned") == [("a",), ("b",)]
assert changed(running.store.rows, pipeline(Board1)) == []
assert changed(running.store.rows, pipeline(Board2)) == ["Board"]

# The old table is shown as it was; all others go on.
running.cancel("a")
running.schedule("c")
projector = running.projector(Board2)
assert running.rows("_id, status") == [("a", "Scheduled"), ("b", "Scheduled")]
assert running.rows("flight", "planned") == [("a",), ("b",), ("c",)]
assert states(Board2) == [
    ("Flight", 1, "shown", 4, 4), ("Planned", 1, "shown", 4, 3), ("Board", 1, "shown (outgrown)", 2, 2)
]

assert (fed("Board"), fed("Planned")) == (0, 2), (fed("Board"), fed("Planned"))

# A rebuild fills a new one, and shows it when it is as far as the mirror.
projector.wish(Wish.REBUILD, ["Board"])
while generations_of(running.store.rows, pipeline(Board2), "Board").shown != 2:
    projector.step()
assert running.rows("_id, status, origin") == [("b", "planned", "JFK"), ("c", "planned", "JFK")]
assert states(Board2)[2:] == [("Board", 1, "kept (outgrown)", 2, 2), ("Board", 2, "shown", 4, 3)]
assert fed("Board") == 2
projector.close()

# Code that changes while a generation is being filled begins again with the next one.
projector = running.projector(Board2)
projector.wish(Wish.REBUILD, ["Board"])
projector.close()
running.prepared(Board2).close()
projector = running.projector(Board3)
while generations_of(running.store.rows, pipeline(Board3), "Board").shown != 4:
    projector.step()
assert running.rows("_id, status") == [("b", "on time"), ("c", "on time")]

# Rows are rebuilt as well.
projector.wish(Wish.REBUILD, ["Planned"])
while generations_of(running.store.rows, pipeline(Board3), "Planned").shown != 2:
    projector.step()
assert running.rows("flight", "planned") == [("a",), ("b",), ("c",)]
projector.close()
running.close()
print("done")
"""


def test_what_has_changed_is_served_as_it_was_until_a_rebuild_shows_the_new(tmp_path: Path) -> None:
    assert "done" in run(CHANGED, tmp_path)


GONE = """
from pathlib import Path
from structlog.testing import capture_logs
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.wishes import Wish
from tests.unit.pipelines.boards import Board1, Running, pipeline

class Table(Board1, wire_name="Table"):
    pass

running = Running(Path(sys.argv[1]))
running.schedule("a", "b")
projector = running.projector(Board1)
projector.wish(Wish.DROP_GONE, [])  # nothing is
assert running.rows("_id") == [("a",), ("b",)]
projector.close()

# What was renamed is filled under its new name; the old table is left as it was, and that is said.
running.schedule("c")
with capture_logs() as logs:
    projector = running.projector(Table)
(said,) = [each for each in logs if each["event"] == "projection gone"]
assert said["projection"] == "Board", said
print(said["what"], said["cure"])
assert running.rows("_id", "table") == [("a",), ("b",), ("c",)]
assert running.rows("_id") == [("a",), ("b",)]

# It is removed on a wish, and nothing else is.
projector.wish(Wish.DROP_GONE, [])
left = {name for name, in running.store.query("SELECT name FROM system.tables WHERE database = 'flights'")}
assert not left & {"board", "board__g1"}, left
assert {"table", "table__g1", "planned"} <= left, left
projector.close()
with capture_logs() as logs:
    running.projector(Table).close()
assert [each for each in logs if each["event"] == "projection gone"] == []

# Whoever gives something the old name again gets all of it.
projector = running.projector(Board1)
assert running.rows("_id") == [("a",), ("b",), ("c",)]
projector.wish(Wish.DROP_GONE, [])
assert "table" not in {name for name, in running.store.query("SELECT name FROM system.tables")}
projector.close()
running.close()
print("done")
"""


def test_a_projection_that_was_renamed_leaves_its_table_until_that_is_dropped(tmp_path: Path) -> None:
    said = run(GONE, tmp_path)
    assert "done" in said
    assert "flights.board is the table of a projection Board, and the pipeline has none of that name" in said
    assert 'With wire_name="Board" it goes on with that table.' in said


ALTERED = """
from pathlib import Path
from structlog.testing import capture_logs
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.wishes import Wish
from tests.unit.pipelines.boards import Board1, Running, pipeline

running = Running(Path(sys.argv[1]))
running.schedule("a", "b")
running.projector(Board1).close()
for table, column in (("board__g1", "status"), ("flight__events__g1", "at")):
    running.store.command(f"ALTER TABLE flights.{table} DROP COLUMN {column}")
running.schedule("c")
with capture_logs() as logs:
    projector = running.projector(Board1)
due = {each["projection"]: each["what"] for each in logs if each["event"] == "rebuild is due"}
print(*due.values())
assert set(due) == {"Board", "mirror"}, due
assert running.rows("flight", "planned") == [("a",), ("b",), ("c",)], "the others go on"

projector.wish(Wish.REBUILD, ["Board", "Flight"])
while any(generations_of(running.store.rows, pipeline(Board1), name).shown != 2 for name in ("Board", "Flight")):
    projector.step()
assert running.rows("_id, status") == [(id, "Scheduled") for id in "abc"]
assert [id for id, at in running.rows("_id, _at", "Scheduled") if at.year > 2000] == ["a", "b", "c"]
projector.close()
running.close()
print("done")
"""


def test_what_was_altered_by_hand_is_filled_no_more_until_a_rebuild_fills_new_tables(tmp_path: Path) -> None:
    said = run(ALTERED, tmp_path)
    assert "done" in said
    assert "`flights`.`board__g1` has no column status, made as String: it was altered by hand" in said
    assert "`flights`.`flight__events__g1` has no column at, made as DateTime64(6, 'UTC')" in said
