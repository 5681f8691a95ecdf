"""What is met at the start: a `dev` that is not up yet, no worker, a pipeline that cannot run as it is declared."""

import json
import os
import signal
from collections.abc import Callable

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog

from tests.e2e.conftest import Shell, start_dev
from tests.e2e.test_cli import is_alive, parts_of

BUY = ("shop", "Order", "9", "Buy", '{"sku": "tea", "pieces": 1}')
BROKEN = {
    "a column": (
        ("sum(pieces) AS sold", "sum(peaces) AS sold"),
        "BestSellers: Unknown expression or function identifier `peaces`. Maybe you meant: ['pieces']. Correct it.",
    ),
    "an event": (
        ("FROM Bought", "FROM Buoght"),
        "BestSellers: Unknown table expression identifier 'Buoght'. Maybe you meant shop.Bought? Correct it.",
    ),
    "the syntax": (
        ("SELECT sku, sum(pieces)", "SELEKT sku, sum(pieces)"),
        "BestSellers: Syntax error: at `",
    ),
    "a type": (("    sold: int", "    sold: str"), "BestSellers.sold is declared as str, and its query gives Int64."),
    "a field": (("    sold: int\n", ""), "The query of BestSellers has a column 'sold' that the class lacks."),
}


def save(shell: Shell, change: Callable[[str], str]) -> None:
    file = shell.folder / "shop.py"
    file.write_text(change(file.read_text()))


def log(shell: Shell) -> str:
    return (shell.folder / "dev.log").read_text()


def test_a_command_waits_for_a_dev_that_is_just_starting(shop: Shell) -> None:
    shop.start("dev", "shop")
    shop.eventually((shop.folder / ".magnetar" / "dev.lock").exists, "it has the folder")
    asked = shop.run("ask", *BUY, "--timeout", "120")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("accepted: Bought(")


def test_a_topic_that_nobody_makes_is_soon_said_to_be_missing(shop: Shell) -> None:
    SqliteLog(shop.folder / ".magnetar", SystemClock()).close()  # as of a run of another pipeline
    asked = shop.run("send", *BUY)
    assert asked.returncode == 3
    assert "The topic shop/order-commands does not exist" in asked.stderr


def test_an_ask_says_that_no_worker_runs_and_what_becomes_of_the_command(shop: Shell) -> None:
    assert shop.run("provision", "shop").returncode == 0
    asked = shop.run("ask", *BUY, "--timeout", "4")
    assert asked.returncode == 3
    soon, late = asked.stderr.splitlines()
    assert soon.startswith("magnetar: no worker takes commands of Order yet. The command ")
    assert "is stored, and is decided as soon as one runs" in soon
    assert "no answer came within 4 s, and no worker takes commands of Order: it is decided as soon as one runs" in late
    shop.start("run", "shop")
    history = ("history", "shop", "Order", "9", "--json")
    shop.eventually(lambda: '"outcome":"accepted"' in shop.run(*history).stdout, "it is decided")


def test_an_ask_that_a_worker_answers_says_nothing_else(shop: Shell) -> None:
    start_dev(shop)
    asked = shop.run("ask", *BUY)
    assert (asked.returncode, asked.stderr) == (0, "")


@pytest.mark.parametrize("what", BROKEN)
def test_a_projection_that_does_not_fit_is_refused_before_anything_starts(shop: Shell, what: str) -> None:
    (old, new), words = BROKEN[what]
    save(shop, lambda text: text.replace(old, new))
    ran = shop.run("dev", "shop")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("magnetar: ")
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (shop.folder / ".magnetar" / "log").exists()


def test_it_is_refused_wherever_the_pipeline_is_looked_at_as_a_whole(shop: Shell) -> None:
    (old, new), words = BROKEN["a column"]
    save(shop, lambda text: text.replace(old, new))
    for command in (["topology", "shop"], ["plan", "shop"], ["run", "shop", "--role", "projector"]):
        ran = shop.run(*command)
        assert (ran.returncode, words in ran.stderr) == (2, True), (command, ran.stderr)


def test_what_was_saved_and_cannot_run_is_said_in_whole_and_in_pythons_words(shop: Shell) -> None:
    start_dev(shop)
    assert shop.run("ask", *BUY).returncode == 0
    parts = parts_of(shop.started[0].pid)
    text = (shop.folder / "shop.py").read_text()
    shipped = ("class Shipped(Event):\n    pieces: int", "class Shipped(Event):\n    pieces: str\n    to: str")
    save(shop, lambda text: text.replace(*shipped))
    shop.eventually(lambda: "not reloaded" in log(shop), "it is refused")
    for words in (
        "The schema of shop/order-events cannot follow those that are registered:",
        "  Shipped.pieces: was int, is str. Keep what was there",
        "  Shipped.to: is new and has no default.",
        "What stands in the log would be read wrongly; nothing was registered.",
    ):
        assert words in log(shop)
    save(shop, lambda _: text.replace(*BROKEN["an event"][0]))
    shop.eventually(lambda: BROKEN["an event"][1] in log(shop), "the query is refused")
    assert parts_of(shop.started[0].pid) == parts
    save(shop, lambda _: text)
    shop.eventually(lambda: "magnetar dev: reloaded" in log(shop), "it is reloaded when it is mended")
    assert log(shop).count("not reloaded") == 2


def test_only_what_the_pipeline_imports_is_watched(shop: Shell) -> None:
    (shop.folder / "limits.py").write_text("MOST = 5\n")
    save(shop, lambda text: "import limits\n" + text.replace("Bought(sku, pieces)\n", "Bought(sku, limits.MOST)\n", 1))
    start_dev(shop)
    assert "pieces=5" in shop.run("ask", *BUY).stdout
    (shop.folder / "unrelated.py").write_text("this is no Python")
    (shop.folder / "limits.py").write_text("from rules import MOST\n")
    shop.eventually(lambda: "No module named 'rules'" in log(shop), "the missing module is named")
    (shop.folder / "rules.py").write_text("MOST = 7 +\n")
    shop.eventually(lambda: "rules.py:1" in log(shop), "the new file is watched too while it is broken")
    (shop.folder / "rules.py").write_text("MOST = 7\n")
    shop.eventually(lambda: log(shop).count("magnetar dev: reloaded") == 1, "it is reloaded")
    assert "pieces=7" in shop.run("ask", *BUY).stdout
    (shop.folder / "unrelated.py").write_text("still no Python")
    (shop.folder / "rules.py").write_text("MOST = 8\n")
    shop.eventually(lambda: log(shop).count("magnetar dev: reloaded") == 2, "what was imported since is watched")
    assert log(shop).count("not reloaded") == 2


def test_a_query_leaves_the_engine_to_a_projector_that_is_started_again(shop: Shell) -> None:
    start_dev(shop)
    assert shop.run("ask", *BUY).returncode == 0
    sql = ("query", "SELECT sum(pieces) AS n FROM shop.Bought", "--format", "jsonl")
    shop.eventually(lambda: shop.run(*sql).stdout == '{"n":1}\n', "it is in the tables")
    for _ in range(2):
        os.kill(parts_of(shop.started[0].pid)["projector"], signal.SIGKILL)
        shop.eventually(lambda: shop.run(*sql).stdout == '{"n":1}\n', "queries are answered again")
    ends = [json.loads(line) for line in log(shop).splitlines() if '"process ended"' in line]
    assert [(end["role"], end["exit_code"]) for end in ends] == [("projector", -9)] * 2


def test_a_part_that_is_refused_is_not_started_again_until_something_is_saved(shop: Shell) -> None:
    """Nearly all is found before: here the tables of the folder are not what the projector made."""
    (shop.folder / "sitecustomize.py").write_text(
        "import os\n"
        "import sys\n"
        "if 'projector' in sys.argv and os.path.exists('broken'):\n"
        "    from magnetar.pipelines import projector_process\n"
        "    from magnetar.schemas import DeclarationError\n"
        "    def refused(*_, **__):\n"
        "        raise DeclarationError('It cannot be.\\n  first\\n  second', cure='Change it.')\n"
        "    projector_process.run_projector = refused\n"
    )
    (shop.folder / "broken").touch()
    shop.environment["PYTHONPATH"] = str(shop.folder)
    start_dev(shop)
    shop.eventually(lambda: "the projector cannot run so, and waits until you save" in log(shop), "it waits")
    assert "It cannot be.\n  first\n  second Change it." in log(shop)
    assert shop.run("ask", *BUY).returncode == 0
    (pid,) = parts_of(shop.started[0].pid).values()
    assert is_alive(pid)
    (shop.folder / "broken").unlink()
    save(shop, lambda text: text + "# mended\n")
    shop.eventually(lambda: set(parts_of(shop.started[0].pid)) == {"worker", "projector"}, "both run")
    assert log(shop).count("It cannot be.") == 1
