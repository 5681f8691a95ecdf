"""`magnetar dev` on a terminal, while files are saved, and when it is stopped."""

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Shell, Terminal, start_dev
from tests.e2e.test_cli import is_alive, parts_of


def save(shell: Shell, change: Callable[[str], str]) -> None:
    """Change shop.py, as an editor does."""
    file = shell.folder / "shop.py"
    file.write_text(change(file.read_text()))


def log(shell: Shell) -> str:
    return (shell.folder / "dev.log").read_text()


def buy(shell: Shell, pieces: int) -> str:
    """What becomes of a purchase."""
    ran = shell.run("ask", "shop", "Order", "9", "Buy", f'{{"sku": "tea", "pieces": {pieces}}}')
    return ran.stdout + ran.stderr


def test_what_is_saved_runs(shop: Shell) -> None:
    start_dev(shop)
    assert "accepted: Bought(sku='tea', pieces=1)" in buy(shop, 1)
    save(shop, lambda text: text.replace("return Bought(sku, pieces)", "return Bought(sku, pieces * 10)"))
    shop.eventually(lambda: "magnetar dev: reloaded" in log(shop), "it is reloaded")
    assert "accepted: Bought(sku='tea', pieces=20)  (version 2" in buy(shop, 2)
    shop.eventually(lambda: "something else of what is recorded" in log(shop), "what that does to history is said")
    assert "Bought(sku='tea', pieces=10)" in log(shop)


def test_what_does_not_import_is_named_and_the_old_parts_go_on(shop: Shell) -> None:
    start_dev(shop)
    buy(shop, 1)
    parts = parts_of(shop.started[0].pid)
    text = (shop.folder / "shop.py").read_text()
    save(shop, lambda text: text + "import nothing_at_all\n")
    shop.eventually(lambda: "not reloaded, the old parts go on" in log(shop), "the error is named")
    assert "No module named 'nothing_at_all'" in log(shop)
    assert parts_of(shop.started[0].pid) == parts
    save(shop, lambda _: text.replace('Pipeline("shop"', 'Pipeline("shop", partitions=3'))
    shop.eventually(lambda: "the pipeline declares 3" in log(shop), "another number of partitions is refused")
    assert parts_of(shop.started[0].pid) == parts
    save(shop, lambda _: text)
    shop.eventually(lambda: "magnetar dev: reloaded" in log(shop), "it is reloaded when it is mended")
    assert "(version 2" in buy(shop, 2)


def test_a_terminal_shows_a_table_and_ctrl_c_leaves_it_clean(shop: Shell) -> None:
    terminal = Terminal(shop, "dev", "shop")
    terminal.read_until("undecided")
    terminal.read_until("projector process")
    terminal.press_ctrl_c()
    assert terminal.wait() == 0
    assert terminal.shown.rstrip().endswith("magnetar dev: stopped")
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("moment", ["magnetar dev: pipeline", "worker process", "queries are answered"])
def test_ctrl_c_at_any_moment_ends_everything_without_a_traceback(shop: Shell, moment: str) -> None:
    terminal = Terminal(shop, "dev", "shop")
    terminal.read_until(moment)
    parts = parts_of(terminal._pid)
    terminal.press_ctrl_c()
    terminal.press_ctrl_c()
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.shown
    assert not any(is_alive(pid) for pid in parts.values())


def test_several_workers_share_the_partitions(shop: Shell) -> None:
    shop.start("run", "shop", "-w", "2")
    shop.eventually(lambda: "2 workers" in (shop.folder / "run.log").read_text(), "the workers are started")
    for id in range(4):
        ran = shop.run("ask", "shop", "Order", str(id), "Buy", '{"sku": "tea", "pieces": 1}', "--timeout", "60")
        assert ran.returncode == 0, ran.stderr
