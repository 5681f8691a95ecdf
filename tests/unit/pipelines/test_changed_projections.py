"""Projections whose code has changed: what is shown meanwhile, and what a rebuild makes of it."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

CHANGED = """
from pathlib import Path
from magnetar.pipelines.rebuild_status import changed, generations_of, statuses
from magnetar.pipelines.wishes import Wish
from tests.unit.pipelines.boards import Board1, Board2, Board3, Running, pipeline

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

# A rebuild fills a new one, and shows it when it is as far as the mirror.
projector.wish(Wish.REBUILD, ["Board"])
while generations_of(running.store.rows, pipeline(Board2), "Board").shown != 2:
    projector.step()
assert running.rows("_id, status, origin") == [("b", "planned", "JFK"), ("c", "planned", "JFK")]
assert states(Board2)[2:] == [("Board", 1, "kept (outgrown)", 2, 2), ("Board", 2, "shown", 4, 3)]
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
