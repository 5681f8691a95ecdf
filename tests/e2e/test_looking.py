"""Looking at a pipeline from a second terminal: topology, history, status, parked commands."""

import json
from typing import Any

from tests.e2e.conftest import Shell, start_dev


def told(shell: Shell, *arguments: str, code: int = 0) -> Any:
    """What `magnetar … --json` prints."""
    ran = shell.run(*arguments, "--json")
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout)


def buy(shell: Shell, id: str, pieces: int, *more: str) -> int:
    fields = json.dumps({"sku": "tea", "pieces": pieces})
    return shell.run("ask", "shop", "Order", id, "Buy", fields, *more).returncode


def test_the_topology_needs_nothing_running(shop: Shell) -> None:
    text = shop.run("topology", "shop").stdout
    for words in (
        "16 partitions",
        "shop/order-commands",
        "Bought, in the view shop.Bought",
        "shop.best_sellers: sku, sold",
    ):
        assert words in text
    (order,) = told(shop, "topology", "shop")["aggregates"]
    assert (order["commands"], order["events"], order["rejections"]) == (
        ["Buy", "Ship"],
        ["Bought", "Shipped"],
        ["Empty"],
    )
    diagram = shop.run("topology", "shop", "--format", "mermaid").stdout
    assert diagram.startswith("flowchart LR\n")
    assert 'projection0["BestSellers<br>shop.best_sellers"]' in diagram
    assert not (shop.folder / ".magnetar").exists()


def test_the_history_is_the_same_while_it_runs_and_afterwards(shop: Shell) -> None:
    start_dev(shop)
    assert buy(shop, "42", 2) == 0
    assert shop.run("ask", "shop", "Order", "42", "Ship").returncode == 0
    assert shop.run("ask", "shop", "Order", "42", "Ship").returncode == 10
    running = told(shop, "history", "shop", "Order", "42")
    assert [commit["outcome"] for commit in running["commits"]] == ["accepted", "accepted", "rejected"]
    assert running["commits"][0]["command"] == {"type": "Buy", "sku": "tea", "pieces": 2}
    assert (running["version"], running["state"]) == (2, {"pieces": 0})
    shop.close()
    assert told(shop, "history", "shop", "Order", "42") == running
    first = told(shop, "history", "shop", "Order", "42", "--version", "1")
    assert (first["version"], first["state"], len(first["commits"])) == (1, {"pieces": 2}, 1)
    assert told(shop, "history", "shop", "Order", "42", "--at", "2020-01-01")["commits"] == []
    people = shop.run("history", "shop", "Order", "42")
    assert people.stdout.endswith("Order 42 at version 2: Order(pieces=0)\n")
    assert "rejected        2  Empty()" in people.stdout
    for arguments, words in (
        (["--version", "9"], "There is no version 9: the newest is 2"),
        (["--at", "2999-01-01"], "is in the future"),
        (["--at", "noon"], "'noon' is not a time"),
    ):
        ran = shop.run("history", "shop", "Order", "42", *arguments)
        assert (ran.returncode, words in ran.stderr) == (2, True), ran.stderr


def test_the_status_says_what_waits_and_what_does_not(shop: Shell) -> None:
    ran = shop.run("status", "shop")
    assert (ran.returncode, f"There is no data folder {shop.folder}/.magnetar. " in ran.stderr) == (3, True)
    assert not (shop.folder / ".magnetar").exists()
    start_dev(shop)
    assert buy(shop, "42", 2) == 0

    def is_all_there() -> bool:
        (order,) = told(shop, "status", "shop")["aggregates"]
        return (order["commits"], order["undecided"], order["unmirrored"], len(order["owners"])) == (1, 0, 0, 1)

    shop.eventually(is_all_there, "one commit, in the tables, of one worker")
    (best_sellers, mirror) = told(shop, "status", "shop")["projections"]
    assert (best_sellers["projection"], best_sellers["commits"], best_sellers["behind"]) == ("best_sellers", 1, 0)
    assert (mirror["projection"], mirror["aggregate"], mirror["age_seconds"]) == ("mirror", "Order", None)
    assert "best_sellers  Order           1        1       0" in shop.run("status", "shop").stdout
    shop.close()
    assert shop.run("send", "shop", "Order", "42", "Ship").returncode == 0
    (order,) = told(shop, "status", "shop")["aggregates"]
    assert (order["commits"], order["undecided"], order["owners"]) == (1, 1, [])
    assert order["oldest_undecided_seconds"] > 0
    assert "nobody" in shop.run("status", "shop", "--partitions").stdout


def test_a_checkpoint_is_built_with_the_code_at_hand(shop: Shell) -> None:
    start_dev(shop)
    assert buy(shop, "42", 2) == 0
    shop.close()
    ran = shop.run("checkpoint", "build", "shop")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 16
    assert [line for line in lines if "no commits" not in line] == [
        "Order 6: built behind commit 1, 1 commit read, 1 state"
    ]
    again = shop.run("checkpoint", "build", "shop", "--aggregate", "Order", "--partition", "6")
    assert again.stdout == "Order 6: the checkpoint behind commit 1 is there\n"
    (order,) = told(shop, "status", "shop")["aggregates"]
    assert order["checkpoints"] == 1
    for wrong, words in ((["--aggregate", "Orders"], "It has Order."), (["--partition", "16"], "Use 0 to 15.")):
        ran = shop.run("checkpoint", "build", "shop", *wrong)
        assert (ran.returncode, words in ran.stderr) == (2, True), ran.stderr


def test_parked_commands_are_listed_retried_and_dropped(shop: Shell) -> None:
    file = shop.folder / "shop.py"
    text = file.read_text()
    file.write_text(text.replace("return Bought(sku, pieces)", "return Bought(sku, pieces // (pieces - 1))"))
    start_dev(shop)
    assert buy(shop, "1", 1, "--actor", "ann") == 11
    assert buy(shop, "2", 1) == 11
    found = told(shop, "parked", "shop")
    assert [(each["aggregate_id"], each["reason"]) for each in found] in (
        [("1", "brain_raised"), ("2", "brain_raised")],
        [("2", "brain_raised"), ("1", "brain_raised")],
    )
    one, two = sorted(found, key=lambda each: each["aggregate_id"])
    assert told(shop, "parked", "shop", "show", one["position"])["command"] == {
        "type": "Buy",
        "sku": "tea",
        "pieces": 1,
    }
    assert "integer" in shop.run("parked", "shop").stdout
    file.write_text(text)
    shop.eventually(lambda: "reloaded" in (shop.folder / "dev.log").read_text(), "the mended code runs")
    retried = told(shop, "parked", "shop", "retry", one["position"])
    assert (retried["settled"], retried["outcome"]) == (one["id"], "accepted")
    dropped = shop.run("parked", "shop", "drop", two["id"], "--reason", "sent twice")
    assert dropped.stdout == f"nothing: dropped: sent twice  (settles {two['position']})\n"
    assert shop.run("parked", "shop").stdout == "No command is parked.\n"
    assert shop.run("parked", "shop", "retry", "--all").stdout == ""
    again = shop.run("parked", "shop", "retry", one["position"])
    assert (again.returncode, "it was settled, or never parked" in again.stderr) == (2, True)
    last = told(shop, "history", "shop", "Order", "1")["commits"][-1]
    assert (last["resolves"], last["actor"], last["events"]) == (
        one["id"],
        "ann",
        [{"type": "Bought", "sku": "tea", "pieces": 1}],
    )
    for arguments, words in (
        (["retry"], "does not say of which command"),
        (["drop", "--all", "--reason", "x"], "--all goes with `retry` alone"),
        (["drop", one["id"]], "Add --reason"),
        (["show", "nonsense"], "No parked command nonsense is open"),
    ):
        ran = shop.run("parked", "shop", *arguments)
        assert (ran.returncode, words in ran.stderr) == (2, True), ran.stderr


def test_a_query_shows_what_was_asked_before_it(shop: Shell) -> None:
    start_dev(shop)
    sql = "SELECT sum(pieces) AS pieces FROM shop.Bought"
    position = ""
    for n in range(1, 6):
        asked = told(shop, "ask", "shop", "Order", str(n), "Buy", json.dumps({"sku": "tea", "pieces": 2}))
        position = asked["position"]
        ran = shop.run("query", sql, "--after", position, "--wait", "60", "--format", "jsonl")
        assert (ran.stdout, ran.stderr) == (f'{{"pieces":{2 * n}}}\n', "")
    later = position.rsplit("/", 1)[0] + "/99"
    ran = shop.run("query", sql, "--after", later, "--fail")
    assert (ran.returncode, "has not come to" in ran.stderr) == (3, True), ran.stderr
    ran = shop.run("query", sql, "--after", later, "--wait", "0.1", "--stale", "--format", "jsonl")
    assert (ran.returncode, ran.stdout, ran.stderr.startswith("stale: ")) == (0, '{"pieces":10}\n', True), ran.stderr
    ran = shop.run("query", sql, "--after", "nonsense")
    assert (ran.returncode, "A position reads context/Aggregate/partition/number" in ran.stderr) == (2, True)
    shop.close()
    # Nobody runs: it looks itself.
    ran = shop.run("query", sql, "--after", position, "--wait", "0.1", "--format", "jsonl")
    assert ran.stdout == '{"pieces":10}\n', ran.stderr
