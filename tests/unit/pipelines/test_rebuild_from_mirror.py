"""Generations filled from the mirror by a projector over a real log and a real engine."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

STAGE = """
from pathlib import Path
from typing import Self
from magnetar.pipelines import Pipeline
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_estimate import estimates
from magnetar.pipelines.rebuild_status import generations_of, statuses
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections import Fold, Rows, Sql
from magnetar.projections.generations import Origin
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import SettingsError, StoreUnavailable
from tests.unit.pipelines.counting_rig import Added, Rig, Tally

class Each(Rows):
    total: int

    @classmethod
    def project(cls, event: Added) -> tuple[Self, ...]:
        return (cls(event.total),)

class Last(Fold):
    total: int = 0

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)

class Greatest(Sql):
    incremental = True
    select = "SELECT _id AS id, max(total) AS total, count() AS times FROM Added GROUP BY id"
    id: str
    total: int
    times: int

NAMES = ["Each", "Last", "Greatest"]
pipeline = Pipeline("tallies", aggregates=[Tally], projections=[Each, Last, Greatest], partitions=2)
rig = Rig(Path(sys.argv[1]) / "data")
store = Store(embedded_dsn(rig.folder))

def opened(failpoint=None):
    projector = Projector(
        pipeline, rig.log, store, Settings(data=rig.folder), clock=rig.clock, failpoint=failpoint
    )
    projector.prepare()
    projector.open()
    return projector

def known(name):
    return generations_of(store.rows, pipeline, name)

def carry_out(projector):
    while any(known(name).wanted is not None for name in NAMES) or projector.step():
        projector.step()

def rows(generation=""):
    return [
        sorted(map(str, store.query(f"SELECT * FROM tallies.{table}{generation} {final}")))
        for table, final in (("each", ""), ("last", "FINAL" if generation else ""), ("greatest", ""))
    ]

for id in "abcde":
    rig.send(1, 2, 300, 0, 3, id=id)
projector = opened()
carry_out(projector)
"""

REBUILT = """
before, passed = rows(), []
projector.close()
projector = opened(passed.append)
projector.wish(Wish.REBUILD, NAMES, Origin.MIRROR)
rig.send(4, 5, id="a")
carry_out(projector)
assert passed.count("filling_handed_over") == 6, passed
assert [known(name)[:3] for name in NAMES] == [((1, 2), 2, 1)] * 3
assert all(known(name).origin is Origin.MIRROR for name in NAMES)
for table in ("each", "last"):
    both = [sorted(map(str, store.query(f"SELECT * FROM tallies.{table}__g{n} FINAL" if table == "last" else
        f"SELECT * FROM tallies.{table}__g{n}"))) for n in (1, 2)]
    assert both[0] == both[1], both
greatest = "SELECT id, total, times FROM tallies.greatest ORDER BY id"
assert store.query(greatest) == store.query(Greatest.select.replace("Added", "tallies.Added") + " ORDER BY id")
projector.close()                    # the next one needs no mirror for them
projector = opened()
rig.send(6, id="e")
carry_out(projector)
assert store.query("SELECT max(total) FROM tallies.each WHERE _id = 'e'") == [(12,)]

(found,) = estimates(store.rows, pipeline, [each for each in statuses(store.rows, pipeline, ["Each"])])
assert found[:5] == ("Each", "Rows", 28, 18, 18), found
kinds = [each.kind for each in estimates(store.rows, pipeline, statuses(store.rows, pipeline, ["Tally", *NAMES]))]
assert kinds == ["mirror", "Rows", "Fold", "incremental Sql"], kinds
projector.close()
"""


def test_projections_are_filled_from_the_mirror_and_go_on_in_the_log(tmp_path: Path) -> None:
    run(STAGE + REBUILT, tmp_path)


LACKING = """
(partition, number), = store.query("SELECT partition, number FROM tallies.tally__commits WHERE aggregate_id = 'a' "
    "ORDER BY number LIMIT 1")
store.command(f"DELETE FROM tallies.tally__commits__g1 WHERE partition = {partition} AND number = {number}")
try:
    projector.wish(Wish.REBUILD, NAMES, Origin.MIRROR)
    raise SystemExit("it was not refused")
except StoreUnavailable as error:
    said = f"The mirror of Tally lacks commit {number}, on partition {partition}: nothing can be rebuilt from it."
    assert error.what == said, error.what
    assert "fills a new mirror from the topics" in error.cure
assert all(known(name)[:2] == ((1,), 1) for name in NAMES)
try:
    projector.wish(Wish.REBUILD, ["Tally", "Each"], Origin.MIRROR)
    raise SystemExit("it was not refused")
except SettingsError as error:
    assert error.what == "Tally is the mirror itself, which comes from the topics alone.", error.what

projector.wish(Wish.REBUILD, ["Tally"])     # what is to be done
while known("Tally").wanted is not None or projector.step():
    projector.step()
before = rows()
projector.wish(Wish.REBUILD, NAMES, Origin.MIRROR)
carry_out(projector)
assert rows() == before
projector.close()
"""


def test_a_mirror_that_lacks_a_commit_is_refused_and_named(tmp_path: Path) -> None:
    run(STAGE + LACKING, tmp_path)
