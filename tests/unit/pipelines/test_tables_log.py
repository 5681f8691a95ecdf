"""Tables belong to the log that they were made from."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

ANOTHER = """
import shutil
from pathlib import Path
from structlog.testing import capture_logs
from tests.unit.pipelines.boards import Board1, Running

first, second = (Path(sys.argv[1]) / name for name in ("first", "second"))
running = Running(first)
running.schedule(*(f"flight-{n:02d}" for n in range(30)))
running.projector(Board1).close()
running.projector(Board1).close()  # the same log, started again
assert len(running.rows("_id")) == 30
running.close()

Running(second).close()
shutil.rmtree(second / "clickhouse")
(first / "clickhouse").rename(second / "clickhouse")
running = Running(second)
running.schedule("flight-98", "flight-99")
with capture_logs() as logs:
    projector = running.projector(Board1)
(lost,) = {(each["what"], each["cure"]) for each in logs if each["event"] == "partition lost"}
print(*lost)
assert len(projector.lost) == 6, projector.lost  # of the mirror, the plans and the board
projector.close()
assert len(running.rows("_id")) == 30
running.close()
print("done")
"""


def test_tables_of_another_log_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    said = run(ANOTHER, tmp_path)
    assert "done" in said
    assert "The tables have commits of flights/Flight from another log" in said
