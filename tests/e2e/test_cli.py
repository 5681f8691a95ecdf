"""The command line at its limits: messages for people, exit codes for programs, and nothing half-done."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE_SECONDS, Shell, start_dev


def parts_of(pid: int) -> dict[str, int]:
    """The processes that a supervisor has started, by role."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            arguments = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if parent == pid and "--role" in arguments:
            found[arguments[arguments.index("--role") + 1]] = int(folder.name)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dev", "nothing"], 2, "There is no module 'nothing'"),
        (["dev", "json"], 2, "declares no pipeline"),
        (["dev", "shop:nothing"], 2, "no pipeline called 'nothing'"),
        (["ask", "shop", "Basket", "1", "Ship"], 2, "has no aggregate 'Basket'. It has: Order."),
        (["ask", "shop", "Order", "1", "Sink"], 2, "Order has no command 'Sink'. It has: Buy, Ship."),
        (["ask", "shop", "Order", "1", "Ship", '{"fast": true}'], 2, "Ship has no field 'fast'. Its fields: none."),
        (["ask", "shop", "Order", "1", "Buy", "{}"], 2, "missing required field `sku`. Its fields: sku, pieces."),
        (["ask", "shop", "Order", "1", "Buy", "nonsense"], 2, "The fields of Buy do not fit"),
        (["ask", "shop", "Order", "1", "Ship"], 3, "There is no data folder"),
        (["query", "SELECT 1"], 3, "There is no ClickHouse data"),
        (["query", "SELECT 1", "--format", "xml"], 2, "There is no format 'xml'"),
        (["run", "shop", "--log-level", "loud"], 2, "There is no log level 'loud'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_line_with_its_exit_code(
    shop: Shell, arguments: list[str], code: int, words: str
) -> None:
    ran = shop.run(*arguments)
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr


def test_a_folder_of_something_else_is_refused_and_left_alone(shop: Shell) -> None:
    (shop.folder / "mine").mkdir()
    (shop.folder / "mine" / "thesis.txt").write_text("important")
    ran = shop.run("dev", "shop", "--data", "mine")
    assert ran.returncode == 3
    assert "not a data folder of Magnetar" in ran.stderr
    assert [path.name for path in (shop.folder / "mine").iterdir()] == ["thesis.txt"]


def test_dev_runs_once_per_folder(shop: Shell) -> None:
    start_dev(shop)
    second = shop.run("dev", "shop")
    assert second.returncode == 3
    assert f"in use by another `magnetar dev`, process {shop.started[0].pid}" in second.stderr


def test_parts_that_are_killed_come_back_and_nothing_is_lost(shop: Shell) -> None:
    start_dev(shop)
    for n in range(3):
        assert shop.run("ask", "shop", "Order", "7", "Buy", '{"sku": "tea", "pieces": 1}').returncode == 0
        parts = parts_of(shop.started[0].pid)
        os.kill(parts["worker" if n % 2 == 0 else "projector"], signal.SIGKILL)
    assert shop.run("ask", "shop", "Order", "7", "Ship", "--json").returncode == 0
    sql = "SELECT pieces FROM shop.Shipped"
    shop.eventually(
        lambda: shop.run("query", sql, "--format", "csv").stdout == '"pieces"\n3\n', "3 pieces were shipped"
    )


def test_when_the_supervisor_is_killed_its_parts_end_and_the_next_one_goes_on(shop: Shell) -> None:
    start_dev(shop)
    assert shop.run("ask", "shop", "Order", "7", "Buy", '{"sku": "tea", "pieces": 1}').returncode == 0
    parts = parts_of(shop.started[0].pid)
    assert set(parts) == {"worker", "projector"}
    shop.started[0].kill()
    shop.eventually(lambda: not any(is_alive(pid) for pid in parts.values()), "the parts have ended")
    start_dev(shop)
    ran = shop.run("ask", "shop", "Order", "7", "Ship", "--json")
    assert json.loads(ran.stdout)["values"] == [{"type": "Shipped", "pieces": 1}]


def test_an_ask_ends_with_the_outcome_as_its_exit_code(shop: Shell) -> None:
    start_dev(shop)
    rejected = shop.run("ask", "shop", "Order", "8", "Ship", "--json")
    assert (rejected.returncode, json.loads(rejected.stdout)["outcome"]) == (10, "rejected")
    unanswered = shop.run("ask", "shop", "Order", "8", "Ship", "--timeout", "0")
    assert unanswered.returncode in (3, 10)
    sent = shop.run("send", "shop", "Order", "8", "Ship", "--json")
    assert json.loads(sent.stdout)["command_id"]


def test_ctrl_c_stops_all_parts(shop: Shell) -> None:
    start_dev(shop)
    parts = parts_of(shop.started[0].pid)
    shop.started[0].send_signal(signal.SIGINT)
    assert shop.started[0].wait(DEADLINE_SECONDS) == 0
    assert not any(is_alive(pid) for pid in parts.values())
    assert "magnetar dev: stopped" in (shop.folder / "dev.log").read_text()
