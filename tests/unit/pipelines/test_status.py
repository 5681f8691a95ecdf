"""How a pipeline is doing, as its log and its tables say."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines.status import PartitionStatus, StatusReader
from magnetar.schemas import StoreUnavailable, partition_of

from tests.unit.pipelines.counting_rig import Add, Rig, Tally, tallies

HOME = partition_of("a", 2)
ROOT = Path(__file__).resolve().parents[3]

# An engine is one per process.
SCRIPT = """
import json, sys
from pathlib import Path
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.status import StatusReader, together
from magnetar.projections.progress import places
from magnetar.projections.store import Store, embedded_dsn
from tests.unit.pipelines.counting_rig import Rig, tallies
from tests.unit.pipelines.test_status import HOME

rig = Rig(Path(sys.argv[1]) / "data")
store = Store(embedded_dsn(rig.folder))
projector = Projector(tallies, rig.log, store, Settings(data=rig.folder), clock=rig.clock)
ask = lambda sql: [json.loads(line) for line in store.read_only(sql, fmt="JSONEachRow").splitlines()]
read = lambda: StatusReader(tallies, rig.log, rig.clock, ask).read()
projector.prepare()
projector.open()
for amounts in ((5, 6, 200), (1, 2)):
    rig.send(*amounts)
    while projector.step():
        pass
found = read()[HOME]
assert (found.commits, found.mirrored, found.oldest_unmirrored_seconds) == (5, 5, None), found
rig.send(7, 13)
found = read()[HOME]
assert (found.commits, found.mirrored) == (7, 5), found
assert found.oldest_unmirrored_seconds is not None
assert places(ask, "tallies")["Tally", HOME].expected == 4
(total,) = together(read())
assert (total.commits, total.unmirrored, total.undecided, total.owners) == (7, 2, 0, ("w1",)), total

# The parked: one settled by a retry that is parked itself, two without an id of which one is dropped, and others.
from magnetar.pipelines.parked import ParkedCommands
from magnetar.projections.progress import outcomes, unsettled
rig.publish(HOME, "", b"junk")
rig.publish(1 - HOME, "", b"junk")
rig.send(13, 13)
parked = ParkedCommands(tallies, rig.log, rig.clock)
first, junk = parked.open_ones()[0], next(one for one in parked.open_ones() if one.parked.reason == "undecodable")
for settling in (parked.again(first), parked.drop(junk, "junk", actor=None)):
    rig.publish(settling.partition, *settling.entry)
while projector.step():
    pass
assert outcomes(ask, "tallies")["Tally", "parked"] == 6
assert unsettled(ask, "tallies") == {"Tally": len(parked.open_ones())} == {"Tally": 4}
projector.close()
store.close()
rig.close()
"""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    yield rig
    rig.close()


def nobody(sql: str) -> list[dict[str, Any]]:
    raise StoreUnavailable("nobody answers")


def status(rig: Rig) -> PartitionStatus:
    """The status of the partition where `a` lives."""
    return StatusReader(tallies, rig.log, rig.clock, nobody).read()[HOME]


def test_a_new_pipeline_has_nothing_to_do(rig: Rig) -> None:
    found = StatusReader(tallies, rig.log, rig.clock, nobody).read()
    assert [(each.partition, each.commits, each.undecided, each.checkpoint) for each in found] == [
        (0, 0, 0, None),
        (1, 0, 0, None),
    ]


def test_commands_that_nobody_has_decided_are_counted_with_the_age_of_the_oldest(rig: Rig) -> None:
    rig.send(5)
    for n in (6, 7):
        rig.client.send(Tally, "a", Add(n))
    found = status(rig)
    assert (found.commits, found.undecided) == (1, 2)
    assert found.oldest_undecided_seconds is not None
    rig.work()
    found = status(rig)
    assert (found.commits, found.undecided, found.oldest_undecided_seconds) == (3, 0, None)


def test_a_repeated_command_leaves_no_commit_and_is_not_undecided(rig: Rig) -> None:
    id = rig.client.send(Tally, "a", Add(5))
    rig.client.send(Tally, "a", Add(5), command_id=id)
    rig.work()
    found = status(rig)
    assert (found.commits, found.undecided) == (1, 0)


def test_the_worker_is_named_while_it_lives_with_the_time_since_when_it_may_write(rig: Rig) -> None:
    rig.send(5)
    found = status(rig)
    assert found.owner == "w1"
    assert found.owned_seconds is not None
    assert 0 <= found.owned_seconds < 600
    rig.worker.close()
    found = status(rig)
    assert (found.owner, found.owned_seconds) == (None, None)


def test_what_the_tables_lack_is_counted_and_the_log_read_from_where_they_are(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{SCRIPT}", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
