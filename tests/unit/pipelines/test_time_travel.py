"""The past of an aggregate, from the tables and from the log."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

SCRIPT = """
from datetime import datetime
from pathlib import Path
from magnetar.pipelines import lookback
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.settings import Settings
from magnetar.projections.store import Store, embedded_dsn
from tests.unit.pipelines.counting_rig import Added, Rig, Tally, tallies

rig = Rig(Path(sys.argv[1]) / "data")
store = Store(embedded_dsn(rig.folder))
for id, amounts in (("a", (5, 0, 6, 200)), ("b", (1, 2)), ("a", (7, 8))):
    rig.send(*amounts, id=id)
projector = Projector(tallies, rig.log, store, Settings(data=rig.folder), clock=rig.clock)
projector.prepare()
projector.open()
while projector.step() or projector.step():
    pass

def from_mirror(id, where):
    state = Tally()
    for row in store.rows(f"SELECT total FROM tallies.Added WHERE _id = '{id}' AND {where} ORDER BY _version"):
        state = state.apply(Added(**row))
    return state

compared = 0
for id in ("a", "b"):
    steps = list(lookback.steps(tallies, rig.log, "Tally", id))
    for step in steps:
        at = lookback.at_of(step.commit)
        by_version = lookback.up_to(steps, version=step.version)[-1].state if step.version else Tally()
        assert from_mirror(id, f"_version <= {step.version}") == by_version
        until = f"_at <= toDateTime64('{at.isoformat().removesuffix('+00:00')}', 6, 'UTC')"
        assert from_mirror(id, until) == lookback.up_to(steps, at=at)[-1].state
        compared += 1
print(compared)
projector.close()
store.close()
rig.close()
"""


def test_an_aggregate_at_any_version_or_time_is_the_same_from_the_tables_and_from_the_log(tmp_path: Path) -> None:
    assert run(SCRIPT, tmp_path).splitlines()[-1] == "8"
