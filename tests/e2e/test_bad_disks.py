"""Disks that are full, and disks that cannot be written: real ones, mounted for the test."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clickhouse_server import clickhouse
from tests.e2e.conftest import Shell, start_dev
from tests.e2e.disks import READ_ONLY, SMALL, Disk
from tests.e2e.readme import write_shop
from tests.e2e.test_server import buy, wait_for

LARGE = json.dumps({"sku": "x" * 100_000, "pieces": 1})


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    """A terminal on a disk of eight megabytes with the README's pipeline."""
    disk = Disk(tmp_path, SMALL, "8m")
    try:
        write_shop(disk.path)
        yield disk
    finally:
        disk.close()


def test_a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_there_is_room(small: Disk) -> None:
    start_dev(small)
    assert small.run("ask", "shop", "Order", "1", "Buy", '{"sku": "tea", "pieces": 1}').returncode == 0
    small.fill()
    stored, refused = 0, small.run("send", "shop", "Order", "1", "Buy", LARGE)
    while refused.returncode == 0:
        stored, refused = stored + 1, small.run("send", "shop", "Order", "1", "Buy", LARGE)
    assert refused.returncode == 3
    assert "is full: nothing was stored. Make room; what was acknowledged is safe." in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "Restore" not in (small.folder / "dev.log").read_text()
    small.make_room()
    shipped = small.run("ask", "shop", "Order", "1", "Ship", "--json")
    assert json.loads(shipped.stdout)["values"] == [{"type": "Shipped", "pieces": stored + 1}], shipped.stderr
    commits = f'"count()"\n{stored + 2}\n'
    small.eventually(
        lambda: small.run("query", "SELECT count() FROM shop.commits", "--format", "csv").stdout == commits,
        "all that was stored is in the tables, and nothing else",
    )


def test_a_worker_on_a_full_disk_says_so_and_not_that_the_log_is_damaged(small: Disk) -> None:
    assert small.run("provision", "shop").returncode == 0
    small.fill()
    ran = small.run("run", "shop")
    assert (ran.returncode, "is full: nothing was stored" in ran.stderr) == (3, True), ran.stderr
    for command in (["status", "shop"], ["history", "shop", "Order", "1"], ["ask", "shop", "Order", "1", "Ship"]):
        ran = small.run(*command)
        assert (ran.returncode, "is full" in ran.stderr) == (3, True), ran.stderr


def test_what_is_begun_on_a_full_disk_leaves_nothing_behind(small: Disk) -> None:
    small.fill()
    for command in (["new", "other"], ["provision", "shop"], ["dev", "shop"]):
        ran = small.run(*command)
        assert (ran.returncode, "No space left on device" in ran.stderr) == (3, True), ran.stderr
        assert "Make room" in ran.stderr
    left = {path.name for path in small.path.rglob("*")}
    assert left <= {"shop.py", "test_shop.py", "fill", ".magnetar"}
    small.make_room()
    assert small.run("provision", "shop").stdout.endswith("Nothing is left to do.\n")


def test_an_output_that_cannot_be_written_is_not_called_our_error(shell: Shell) -> None:
    shell.within = ["sh", "-c", 'exec "$0" "$@" > /dev/full']
    ran = shell.run("explain")
    assert (ran.returncode, ran.stderr.count("\n")) == (3, 1)
    assert "no room is left where the output goes" in ran.stderr


def test_a_folder_that_cannot_be_written_is_refused_by_every_command(shop: Shell, tmp_path: Path) -> None:
    start_dev(shop)
    assert shop.run("ask", "shop", "Order", "1", "Buy", '{"sku": "tea", "pieces": 1}').returncode == 0
    shop.eventually(lambda: shop.run("query", "SELECT 1").returncode == 0, "queries are answered")
    shop.close()
    disk = Disk(tmp_path, READ_ONLY)
    try:
        for command in (
            ["dev", "shop"],
            ["run", "shop", "--role", "projector"],
            ["ask", "shop", "Order", "1", "Ship"],
            ["send", "shop", "Order", "1", "Ship"],
            ["history", "shop", "Order", "1"],
            ["status", "shop"],
            ["parked", "shop"],
            ["rebuild", "shop"],
            ["query", "SELECT 1"],
        ):
            ran = disk.run(*command)
            assert (ran.returncode, "is read-only. Make it writable." in ran.stderr) == (3, True), (command, ran.stderr)
            assert ran.stderr.count("\n") == 1
    finally:
        disk.close()
    assert json.loads(shop.run("history", "shop", "Order", "1", "--json").stdout)["version"] == 1


def test_a_server_whose_disk_is_full_is_waited_for(shop: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    disk = Disk(tmp_path_factory.mktemp("server"), SMALL, "64m")
    try:
        with clickhouse(disk.folder, within=disk.within) as server:
            shop.environment |= server.environment
            start_dev(shop)
            buy(shop, ("1", "tea"))
            wait_for(shop, "SELECT count() AS n FROM shop.Bought", [{"n": 1}])
            disk.fill()
            buy(shop, ("1", "tea"), ("2", "tea"))
            refused = "NOT_ENOUGH_SPACE"
            shop.eventually(lambda: refused in (shop.folder / "dev.log").read_text(), "an insert is refused")
            disk.make_room()
            wait_for(
                shop, "SELECT count() AS n, uniqExact(_number, _partition) AS m FROM shop.Bought", [{"n": 3, "m": 3}]
            )
    finally:
        disk.close()
