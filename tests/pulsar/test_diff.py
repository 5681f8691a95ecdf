"""`magnetar diff` and `magnetar fork` on Pulsar, while the pipeline runs there and when it does not."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, start_dev
from tests.e2e.readme import write_shop
from tests.pulsar_rig import Existing

FOLD = '''
from magnetar import Fold


class Basket(Fold):
    """What is in each basket."""

    pieces: int = 0

    def apply(self, event: Bought) -> Self:
        return self.replace(pieces=self.pieces + event.pieces)


shop = Pipeline("shop", aggregates=[Order], projections=[BestSellers, Basket], partitions=2)
'''


@pytest.fixture
def shell(tmp_path: Path, broker: Existing) -> Iterator[Shell]:
    """A terminal in a folder with a pipeline whose log is on Pulsar."""
    shell = Shell(tmp_path)
    shell.environment |= broker.environment(broker.new_tenant())
    write_shop(tmp_path)
    text = (tmp_path / "shop.py").read_text()
    (tmp_path / "shop.py").write_text(text[: text.index("shop = Pipeline")] + FOLD)
    yield shell
    shell.close()


def told(shell: Shell, *arguments: str, code: int) -> Any:
    ran = shell.run(*arguments, "--json")
    assert ran.returncode == code, ran
    return json.loads(ran.stdout)


def buy(shell: Shell, id: str, pieces: int) -> None:
    fields = json.dumps({"sku": "tea", "pieces": pieces})
    ran = shell.run("ask", "shop", "Order", id, "Buy", fields)
    assert ran.returncode == 0, ran


def baskets(shell: Shell) -> int:
    ran = shell.run("query", "SELECT count() AS n FROM shop.basket", "--format", "jsonl")
    return int(json.loads(ran.stdout)["n"]) if ran.returncode == 0 else 0


def test_a_change_is_compared_with_what_stands_on_pulsar_and_a_fork_with_another_time(shell: Shell) -> None:
    start_dev(shell)
    for id, pieces in (("1", 2), ("2", 30)):
        buy(shell, id, pieces)
    until = datetime.now(UTC).isoformat()
    buy(shell, "3", 1)
    shell.eventually(lambda: baskets(shell) == 3, "all are in the table")
    same = told(shell, "diff", "shop", code=0)
    assert (same["same"], same["aggregates"][0]["asked"]) == (True, 3)

    shell.close()
    file = shell.folder / "shop.py"
    line = "            case Buy(sku, pieces):\n"
    rule = f"            case Buy(pieces=pieces) if pieces > 10:\n                return Empty()\n{line}"
    text = file.read_text()
    assert line in text
    file.write_text(text.replace(line, rule).replace("self.pieces + event.pieces", "self.pieces + event.pieces + 1"))
    found = told(shell, "diff", "shop", "Order", "Basket", code=1)
    (otherwise,) = found["aggregates"][0]["otherwise"]
    assert (otherwise["recorded"], otherwise["now"], otherwise["commands"]) == ("Bought", "rejected: Empty", 1)
    (basket,) = found["tables"]
    assert (basket["before"], basket["after"], basket["changed"]) == (3, 3, 3)

    then = told(shell, "fork", "shop", "Basket", "--until", until, code=1)
    assert (then["before"], then["after"], then["added"], then["changed"]) == (2, 3, 1, 0)
