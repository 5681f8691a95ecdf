"""Data folders that are half-deleted, newer, or put back from a copy: nothing is begun anew in silence."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, start_dev
from tests.e2e.readme import write_shop

pytestmark = pytest.mark.xdist_group("bad_folders")  # the tests share what `used` has made

BUY = '{"sku": "tea", "pieces": 1}'
COUNT = ("query", "SELECT count() FROM shop.commits", "--format", "csv")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's pipeline and a data folder that was in use; only copies of it are changed."""
    shell = Shell(tmp_path_factory.mktemp("used"))
    write_shop(shell.folder)
    try:
        start_dev(shell)
        for _ in range(3):
            assert shell.run("ask", "shop", "Order", "1", "Buy", BUY).returncode == 0
        shell.eventually(lambda: are_mirrored(shell, 3), "the tables have them")
    finally:
        shell.close()
    return shell.folder


def are_mirrored(shell: Shell, commits: int) -> bool:
    return shell.run(*COUNT).stdout == f'"count()"\n{commits}\n'


@pytest.fixture
def copy(used: Path, tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a copy of it."""
    shell = Shell(tmp_path / "copy")
    shutil.copytree(used, shell.folder, symlinks=True)
    yield shell
    shell.close()


def version(shell: Shell) -> int:
    told = json.loads(shell.run("history", "shop", "Order", "1", "--json").stdout)
    return int(told["version"])


@pytest.mark.parametrize(
    "missing",
    [
        "magnetar.json",
        "log/shop/order-events",
        "log/shop/order-events/topic.json",
        "log/shop/order-events/6.sqlite",
        "log/shop/order-commands/consumers.sqlite",
    ],
)
def test_what_is_missing_is_named_and_not_begun_anew(copy: Shell, missing: str) -> None:
    path = copy.folder / ".magnetar" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = copy.run("dev", "shop")
    assert ran.returncode == 3
    assert f"The data folder is not complete: {path} is missing, with what stood in it." in ran.stderr
    assert "Restore the whole folder from a copy" in ran.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("missing", "lost", "mend"),
    [
        ("log/shop/order-events", "what was decided there is lost", "restore the whole folder from a copy"),
        ("log/shop/order-events/topic.json", "what was decided there is lost", "restore the whole folder from a copy"),
        ("log/shop/order-events/6.sqlite", "what was decided there is lost", "restore the whole folder from a copy"),
        ("log/shop/order-commands/0.sqlite", "not decided yet are lost", "restore the whole folder from a copy"),
        ("log/shop/order-checkpoints/6.sqlite", "a start takes longer", "remove {folder}: it is made again"),
    ],
    ids=["events", "topic", "partition", "commands", "checkpoints"],
)
def test_the_doctor_says_what_is_missing_what_is_lost_and_what_mends_it(
    copy: Shell, missing: str, lost: str, mend: str
) -> None:
    path = copy.folder / ".magnetar" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = copy.run("doctor", "shop")
    assert ran.returncode == 3
    assert f"dangerous  {path}: file is missing, must be there" in ran.stdout
    assert lost in ran.stdout
    assert f"mend: {mend.format(folder=path.parent)}" in ran.stdout
    refused = copy.run("provision", "shop")
    assert (refused.returncode, f"! file {path}: it is missing" in refused.stderr) == (2, True), refused.stderr
    assert not path.exists()


def test_without_its_checkpoints_a_folder_can_be_used(copy: Shell) -> None:
    """What the doctor says of them."""
    shutil.rmtree(copy.folder / ".magnetar" / "log" / "shop" / "order-checkpoints")
    start_dev(copy)
    assert copy.run("ask", "shop", "Order", "1", "Ship").returncode == 0
    assert version(copy) == 4


@pytest.mark.parametrize(
    "broken", ["magnetar.json", "log/shop/order-events/topic.json", "log/shop/order-events/6.sqlite"]
)
def test_what_is_broken_is_named(copy: Shell, broken: str) -> None:
    path = copy.folder / ".magnetar" / broken
    path.write_text("{")
    ran = copy.run("status", "shop")
    assert ran.returncode == 3
    assert f"{path} cannot be " in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_newer_folder_is_refused(copy: Shell) -> None:
    (copy.folder / ".magnetar" / "magnetar.json").write_text('{"format": 2}')
    ran = copy.run("dev", "shop")
    assert (ran.returncode, "has format 2; this Magnetar reads format 1" in ran.stderr) == (3, True), ran.stderr


def test_without_its_clickhouse_folder_the_tables_are_filled_again(copy: Shell) -> None:
    shutil.rmtree(copy.folder / ".magnetar" / "clickhouse")
    ran = copy.run(*COUNT)
    assert (ran.returncode, "There is no ClickHouse data" in ran.stderr) == (3, True), ran.stderr
    start_dev(copy)
    copy.eventually(lambda: are_mirrored(copy, 3), "the tables have what the log has")


def test_tables_without_their_log_are_not_written(copy: Shell) -> None:
    shutil.rmtree(copy.folder / ".magnetar" / "log")
    start_dev(copy)
    log = copy.folder / "dev.log"
    copy.eventually(lambda: "from another log" in log.read_text(), "the projector says so", 120)
    assert "Restore both from one copy" in log.read_text()
    assert are_mirrored(copy, 3)
    shown = copy.run("status", "shop").stdout
    assert "The tables have commits of shop/Order from another log" in shown
    assert "They are not fed." in shown
    told = json.loads(copy.run("status", "shop", "--json").stdout)
    assert told["tables_of_another_log"] == ["Order"]
    assert [each["unmirrored"] for each in told["aggregates"]] == [None], "how far they are says nothing of this log"
    assert told["projections"] == []


def test_a_copy_in_another_place_goes_on_from_what_it_has(copy: Shell) -> None:
    """What was put in after it was taken is not in it, and nothing of that is missed."""
    start_dev(copy)
    shipped = copy.run("ask", "shop", "Order", "1", "Ship", "--json")
    assert json.loads(shipped.stdout)["values"] == [{"type": "Shipped", "pieces": 3}], shipped.stderr
    copy.eventually(lambda: are_mirrored(copy, 4), "the tables go on from there")
    assert version(copy) == 4


def test_a_backup_that_was_made_with_cp_brings_everything_back(copy: Shell, tmp_path: Path) -> None:
    """As docs/command-line.md says. What was lost stands at another path than what the links were made in."""
    backup = tmp_path / "backup"
    subprocess.run(["cp", "-a", copy.folder / ".magnetar", backup], check=True)
    assert any(path.is_symlink() for path in backup.rglob("*"))
    shutil.rmtree(copy.folder / ".magnetar")
    subprocess.run(["cp", "-a", backup, copy.folder / ".magnetar"], check=True)
    assert are_mirrored(copy, 3)
    start_dev(copy)
    assert copy.run("ask", "shop", "Order", "1", "Buy", BUY).returncode == 0
    copy.eventually(lambda: are_mirrored(copy, 4), "the tables go on from there")
    assert version(copy) == 4


def test_a_copy_without_the_links_of_clickhouse_is_told_what_to_do(copy: Shell, used: Path) -> None:
    """As of a tool that copies what a link leads to."""
    clickhouse = copy.folder / ".magnetar" / "clickhouse"
    shutil.rmtree(clickhouse)
    shutil.copytree(used / ".magnetar" / "clickhouse", clickhouse)
    ran = copy.run("rebuild", "shop")
    assert ran.returncode == 3
    assert "without the folder `clickhouse` of the data folder, new tables are filled from it" in ran.stderr
    assert version(copy) == 3
