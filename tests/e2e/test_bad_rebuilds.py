"""Rebuilds on disks without room for them, and refusals that come from the process that runs."""

import json
import os
import pty
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE_SECONDS, Shell, start_dev
from tests.e2e.disks import SMALL, Disk
from tests.e2e.readme import write_shop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    """A terminal on a disk of 64 megabytes with the README's pipeline."""
    disk = Disk(tmp_path, SMALL, "64m")
    try:
        write_shop(disk.path)
        yield disk
    finally:
        disk.close()


def leave(disk: Disk, count: int) -> None:
    """Take all room but so many bytes."""
    found = os.statvfs(disk.path)
    with (disk.path / "fill").open("wb") as file:
        for _ in range(max(0, found.f_bavail * found.f_frsize - count) // 65536):
            file.write(bytes(65536))


def test_a_rebuild_without_room_is_refused_by_the_one_that_runs_and_done_when_there_is_room(small: Disk) -> None:
    start_dev(small)
    for _ in range(40):  # what cannot be compressed
        large = json.dumps({"sku": secrets.token_hex(50_000), "pieces": 1})
        assert small.run("send", "shop", "Order", "1", "Buy", large).returncode == 0
    mirrored = lambda: small.run("query", "SELECT count() FROM shop.commits", "--format", "csv").stdout  # noqa: E731
    small.eventually(lambda: mirrored() == '"count()"\n40\n', "all is in the tables")
    leave(small, 1_500_000)
    refused = small.run("rebuild", "shop")
    assert (refused.returncode, "MB are free: nothing was begun. Make room" in refused.stderr) == (3, True), refused
    assert small.run("rebuild", "shop", "--status").stdout.count("shown") == 1
    small.make_room()
    done = small.run("rebuild", "shop")
    assert (done.returncode, "generation 2 is shown, with 40 commits" in done.stdout) == (0, True), done
    assert mirrored() == '"count()"\n40\n'


STAGE = """
import os, secrets, sys
from pathlib import Path
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import MagnetarError
from tests.unit.pipelines.counting_rig import Add, Rig, Tally, tallies

fill = Path("fill")
rig = Rig(Path("data").absolute())
store = Store(embedded_dsn(rig.folder))

def opened():
    projector = Projector(tallies, rig.log, store, Settings(data=rig.folder), clock=rig.clock)
    projector.prepare()
    projector.open()
    return projector

def known():
    return generations_of(store.rows, tallies, "Tally")

def carry_out():
    while known().wanted is not None or projector.step():
        projector.step()

def rows(sql="SELECT count(), sum(cityHash64(toString(tuple(* EXCEPT _mirrored_at)))) FROM tallies.commits"):
    return store.query(sql)
"""

BECOMES_FULL = """
for n in range(40):
    rig.client.send(Tally, f"{n}", Add(1), metadata={"x": secrets.token_hex(50_000)})
rig.work()
projector = opened()
carry_out()
print(rows())
projector.wish(Wish.REBUILD, ["Tally"])
left = int(sys.argv[1])
with fill.open("wb", buffering=0) as file:
    for size in (65536, 1):
        try:
            while os.statvfs(".").f_bavail * 4096 > left and file.write(bytes(size)) == size:
                pass
        except OSError:
            pass
try:
    while not projector._filler.feeding.lost:  # it is tried again now and then
        projector.step()
    print("lost")
except MagnetarError as error:
    print(type(error).__name__)
print(rows())
print(known()[:2], known().wanted)
os._exit(0)
"""

GOES_ON = """
projector = opened()
carry_out()
print(known()[:3])
print(rows())
projector.close()
store.close()
rig.close()
"""


@pytest.mark.parametrize("left", [0, 1_000_000])
def test_a_disk_that_becomes_full_in_a_rebuild_leaves_what_is_shown_and_the_next_projector_goes_on(
    small: Disk, left: int
) -> None:
    def run(script: str) -> list[str]:
        code = f"import sys; sys.path.append({str(ROOT)!r})\n{STAGE}{script}"
        command = [*small.within, sys.executable, "-P", "-c", code, str(left)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return [line for line in ran.stdout.splitlines() if " [" not in line]

    before, error, after, generations = run(BECOMES_FULL)
    assert (before, generations) == (after, "((1, 2), 1) 2")
    assert error == ("StoreUnavailable" if left == 0 else "lost")
    small.make_room()
    assert run(GOES_ON) == ["((1, 2), 2, 1)", before]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rollback"], "Generation 1 is shown, and none that was shown before is kept."),
        (["--drop-old"], "Generation 1 is shown, and no older one is kept."),
    ],
    ids=["rollback", "drop_old"],
)
def test_a_refusal_of_the_one_that_runs_reaches_the_second_terminal(
    shell: Shell, options: list[str], said: str
) -> None:
    write_shop(shell.folder)
    start_dev(shell)
    refused = shell.run("rebuild", "shop", *options)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused


def test_a_terminal_sees_a_bar_while_a_rebuild_goes_on(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = """
import time
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.rebuild_progress import progress
from magnetar.pipelines.rebuild_status import GenerationStatus
with progress(SystemClock(), json=False) as bar:
    for commits in (0, 500, 1000):
        bar.show([GenerationStatus("Order", 2, "filling", commits, 1000, 0, 0)])
        time.sleep(0.2)
"""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script], stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:
            pass
        os.close(ours)
    assert process.returncode == 0, seen
    assert b"Order, generation 2" in seen
    assert b"1000/1000" in seen


FOLD = """
from magnetar import Fold


class Basket(Fold):
    pieces: int = 0

    def apply(self, event: Bought) -> Self:
        return self.replace(pieces=self.pieces + event.pieces)


shop = Pipeline("shop", aggregates=[Order], projections=[BestSellers, Basket])
"""


def test_tables_of_a_projection_that_was_renamed_are_removed_when_that_is_asked_for(shop: Shell) -> None:
    file = shop.folder / "shop.py"
    text = file.read_text()
    text = text[: text.index("shop = Pipeline")] + FOLD
    file.write_text(text)
    start_dev(shop)
    assert shop.run("ask", "shop", "Order", "1", "Buy", '{"sku": "tea", "pieces": 2}').returncode == 0
    asked = ("query", "SELECT count() FROM shop.basket", "--format", "csv")
    shop.eventually(lambda: shop.run(*asked).stdout.endswith("\n1\n"), "the basket is in its table")
    none = shop.run("rebuild", "shop", "--drop-gone")
    assert (none.returncode, "Every table is of a projection that the pipeline declares." in none.stdout) == (0, True)
    file.write_text(text.replace("Basket", "Cart"))
    shop.eventually(lambda: "projection gone" in (shop.folder / "dev.log").read_text(), "it is said")
    shop.eventually(lambda: shop.run(*asked).returncode == 0, "the old table can be asked")
    done = shop.run("rebuild", "shop", "--drop-gone")
    assert (done.returncode, done.stdout) == (0, "The tables of Basket are removed.\n"), done
    assert "UNKNOWN_TABLE" in shop.run(*asked).stderr
    both = shop.run("rebuild", "shop", "Cart", "--drop-gone")
    assert (both.returncode, "goes with no other option" in both.stderr) == (2, True), both
