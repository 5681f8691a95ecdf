"""Arguments and settings that cannot be meant: refused in one line, and nothing is done."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE_SECONDS, MAGNETAR, Shell, start_dev
from tests.e2e.readme import write_shop

pytestmark = pytest.mark.xdist_group("bad_arguments")  # the tests share one `magnetar dev`

BUY = '{"sku": "tea", "pieces": 1}'
ODD = "\udcff"  # how Python gives the byte 0xff, which is no text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A terminal beside a pipeline that runs, for tests that leave it as it is or use an id of their own."""
    shell = Shell(tmp_path_factory.mktemp("shop"))
    write_shop(shell.folder)
    try:
        start_dev(shell)
        yield shell
    finally:
        shell.close()


def refusal(shell: Shell, *arguments: str, code: int = 2) -> str:
    """What the command says, in one line, when it ends with this exit code."""
    ran = shell.run(*arguments)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def test_an_id_that_cannot_be_one_is_refused(running: Shell) -> None:
    impossible = {
        "": "the aggregate id is empty",
        "x" * 513: "the aggregate id is 513 bytes long; 512 are allowed",
        "\u00e9" * 257: "the aggregate id is 514 bytes long",
        "a\0b": "cannot be printed, U+0000",
        "a\nb": "cannot be printed, U+000A",
        "a\tb": "cannot be printed, U+0009",
        "\u202e24": "cannot be printed, U+202E",  # what follows is shown from right to left
        "a\u200bb": "cannot be printed, U+200B",
        "a\u00a0b": "cannot be printed, U+00A0",
        "\U0001f468\u200d\U0001f469": "cannot be printed, U+200D",
        "a\ud800": "cannot be printed, U+D800",
        "a" + ODD: "cannot be printed, U+DCFF",
    }
    said = told(
        running,
        f"""
for id in {list(impossible)!a}:
    try:
        client.send(Order, id, Buy("tea", 1))
    except MagnetarError as error:
        print(type(error).__name__, error)
""",
    )
    assert len(said) == len(impossible)
    for line, why in zip(said, impossible.values(), strict=True):
        assert line.startswith("MessageRefused The command was not sent: ")
        assert why in line
    for command in ("ask", "history"):
        more = ("Buy", BUY) if command == "ask" else ()
        assert "U+202E" in refusal(running, command, "shop", "Order", "\u202e24", *more)
        assert "is not UTF-8" in refusal(running, command, "shop", "Order", "a" + ODD, *more)


def test_an_id_that_only_looks_dangerous_is_a_key_like_any_other(running: Shell) -> None:
    quotes, latin, cyrillic = "O'Brien\"; DROP TABLE x; --", "A7", "\u04107"
    odd = ["../../etc/passwd", quotes, latin, cyrillic, "\U0001f6d2", "\u0637\u0644\u0628", " ", "%s{}\\`$x", "y" * 512]
    said = told(running, f"for id in {odd!a}:\n    print(client.ask(Order, id, Buy('odd', 1)).version)\n")
    assert said == ["1"] * len(odd)
    for id in (quotes, cyrillic):
        history = json.loads(running.run("history", "shop", "Order", id, "--json").stdout)
        assert (history["id"], history["version"]) == (id, 1)
    sql = "SELECT _id AS id, count() AS n FROM shop.Bought WHERE sku = 'odd' GROUP BY _id ORDER BY _id"
    rows = [{"id": id, "n": 1} for id in sorted(odd, key=str.encode)]

    def found() -> list[object]:
        return [json.loads(line) for line in running.run("query", sql, "--format", "jsonl").stdout.splitlines()]

    running.eventually(lambda: found() == rows, "each is in the tables once")


def test_a_command_that_the_log_cannot_take_is_not_sent(running: Shell) -> None:
    """No command line can carry one that large."""
    said = told(
        running,
        """
try:
    client.send(Order, "large", Buy("x" * 6_000_000, 1))
except MagnetarError as error:
    print(type(error).__name__, error)
""",
    )
    assert "MessageRefused The Buy was not sent: it has 6,000," in said[0]
    assert json.loads(running.run("history", "shop", "Order", "large", "--json").stdout)["commits"] == []


def told(shell: Shell, code: str) -> list[str]:
    """The lines that a program with a client prints."""
    head = "import sys\nsys.path.append('.')\nfrom magnetar import MagnetarError, SyncClient\nfrom shop import *\n"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", f"{head}with SyncClient(shop) as client:\n{textwrap.indent(code, '    ')}"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ('{"sku": "tea", "pieces": "1"}', "Expected `int`, got `str` - at `$.pieces`"),
        ('{"sku": "tea", "pieces": 1.5}', "Expected `int`, got `float`"),
        ('{"sku": null, "pieces": 1}', "Expected `str`, got `null`"),
        ('{"sku": "tea", "pieces": 9223372036854775808}', "does not fit 64 bits"),
        ('{"sku": "tea", "peaces": 1, "pieces": 1}', "Buy has no field 'peaces'"),
        ('{"sku": "\\ud800", "pieces": 1}', "JSON is malformed"),
        ('{"sku": "' + ODD + '", "pieces": 1}', "is not UTF-8"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ("", "Input data was truncated"),
    ],
    ids=["text", "float", "null", "65-bits", "misspelled", "half-a-pair", "no-text", "array", "empty"],
)
def test_fields_that_do_not_fit_are_named(running: Shell, fields: str, why: str) -> None:
    assert why in refusal(running, "ask", "shop", "Order", "unsent", "Buy", fields)


def test_nothing_of_what_does_not_fit_was_sent(running: Shell) -> None:
    refusal(running, "ask", "shop", "Order", "unsent", "Buy", "{}")
    assert json.loads(running.run("history", "shop", "Order", "unsent", "--json").stdout)["commits"] == []
    assert "Order unsent was never sent a command." in running.run("history", "shop", "Order", "unsent").stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["ask", "shop", "Order", "1", "Ship", "--timeout", "-1"], "nobody can wait for -1 s"),
        (["ask", "shop", "Order", "1", "Ship", "--timeout", "nan"], "nobody can wait for nan s"),
        (["ask", "shop", "Order", "1", "Ship", "--timeout", "inf"], "nobody can wait for inf s"),
        (["ask", "shop", "Order", "1", "Ship", "--command-id", "7"], "is not a UUID version 7"),
        (["history", "shop", "Order", "1", "--version", "99"], "There is no version 99: the newest is"),
        (["history", "shop", "Order", "1", "--at", "2999-01-01"], "is in the future"),
        (["history", "shop", "Order", "1", "--at", "noon"], "'noon' is not a time"),
        (["parked", "shop", "show", "shop/Order/1/99"], "No parked command shop/Order/1/99 is open"),
        (["parked", "shop", "retry", "a/b/c"], "No parked command a/b/c is open"),
        (["rebuild", "shop", "Basket"], "no projection with a table of that name. It has: Order."),
        (["rebuild", "shop", "Order", "--from", "mirror"], "Order is the mirror itself, which comes from the topics"),
        (["rebuild", "shop", "--from", "mirror"], "has no projection with a table"),
        (["rebuild", "shop", "--from", "disk"], "Tables are not filled from 'disk'"),
        (["rebuild", "shop", "--status", "--from", "mirror"], "--from goes with a rebuild and with --dry-run alone"),
        (["query", ""], "The query is empty"),
        (["query", "SELECT"], "SYNTAX_ERROR"),
        (["query", "SELECT * FROM shop.worst_sellers"], "UNKNOWN_TABLE"),
        (["query", "SELECT colour FROM shop.best_sellers"], "UNKNOWN_IDENTIFIER"),
        (["query", "SELECT price FROM shop.best_sellers"], "Has a projection gained that column?"),
        (["query", "DROP TABLE shop.best_sellers"], "DROP is not a statement that reads"),
        (["query", "SELECT 1; SELECT 2"], "Multi-statements are not allowed"),
        (["query", f"SELECT '{ODD}'"], "is not UTF-8"),
        (["topology", "shop", "--format", "xml"], "There is no format 'xml'"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value[:1] + value[-2:]).replace(ODD, "odd"),
)  # fmt: skip
def test_what_does_not_exist_or_cannot_be_meant_is_named(running: Shell, arguments: list[str], why: str) -> None:
    assert why in refusal(running, *arguments)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MAGNETAR_QUERY_PORT", "99999"),
        ("MAGNETAR_QUERY_PORT", "many"),
        ("MAGNETAR_QUERY_SECONDS_MAX", "nan"),
        ("MAGNETAR_QUERY_MEMORY_BYTES_MAX", "-5"),
        ("MAGNETAR_BROKER", "kafka://here"),
        ("MAGNETAR_BROKERS", "pulsar://here"),
        ("MAGNETAR_TENANT", ""),
        ("MAGNETAR_TENANT", "a b"),
        ("MAGNETAR_CLICKHOUSE", "clickhouse:8443"),
        ("MAGNETAR_CLICKHOUSE", "https://me:secret@clickhouse:8443"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything_starts(shop: Shell, setting: str, value: str) -> None:
    shop.environment[setting] = value
    assert setting in refusal(shop, "dev", "shop")
    assert not (shop.folder / ".magnetar").exists()


BROKEN = {
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "raises": ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    "unspeakable": ("class E(Exception):\n    def __str__(self): return 1\nraise E\n", "<exception str() failed>"),
    "misspelled": ("def f(:\n", "SyntaxError: invalid syntax"),
    "endless": ("def f(): f()\nf()\n", "RecursionError"),
    "lacking": ("import nothing_at_all\n", "No module named 'nothing_at_all'"),
    "empty": ("x = 1\n", "declares no pipeline"),
    "twofold": ("from shop import *\nother = Pipeline('other', aggregates=[Order])\n", "several pipelines: other"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_gives_no_pipeline_is_told_with_its_error(shop: Shell, name: str) -> None:
    text, why = BROKEN[name]
    (shop.folder / f"{name}.py").write_text(text)
    assert why in refusal(shop, "dev", name)
    assert not (shop.folder / ".magnetar").exists()


def test_another_number_of_partitions_is_refused_by_every_command_and_nothing_is_sent(shop: Shell) -> None:
    assert shop.run("provision", "shop").returncode == 0
    module = shop.folder / "shop.py"
    text = module.read_text()
    module.write_text(text.replace('Pipeline("shop"', 'Pipeline("shop", partitions=3'))
    for command in ("dev", "run", "status", "parked", "rebuild"):
        assert "16 partitions" in refusal(shop, command, "shop")
    for command in ("ask", "send"):
        assert "set it back" in refusal(shop, command, "shop", "Order", "1", "Ship")
    assert "set it back" in refusal(shop, "history", "shop", "Order", "1")
    module.write_text(text)
    (order,) = json.loads(shop.run("status", "shop", "--json").stdout)["aggregates"]
    assert (order["commits"], order["undecided"]) == (0, 0)


def test_a_file_is_no_data_folder(shop: Shell) -> None:
    for command in (["dev", "shop"], ["status", "shop"]):
        assert "is not a folder. Choose another" in refusal(shop, *command, "--data", "shop.py", code=3)


def test_no_output_is_needed_to_its_end(running: Shell) -> None:
    for arguments in ("history shop Order 1", "topology shop", "status shop --partitions", "explain", "--help"):
        command = f"{MAGNETAR} {arguments} | head -n 1"
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=running.folder,
            env=running.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.stdout.count("\n"), ran.stderr) == (1, ""), arguments


def test_a_folder_of_the_data_is_all_that_a_refusal_may_leave(shop: Shell, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    refusal(shop, "history", "shop", "Order", "1", code=3)
    refusal(shop, "status", "shop", code=3)
    refusal(shop, "query", "SELECT 1", code=3)
    refusal(shop, "doctor", "shop", code=3)
    assert shop.run("plan", "shop").stdout.endswith("3 steps.\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "empty"])
def test_a_mistyped_folder_is_not_made_and_nothing_is_sent(running: Shell, is_there: bool) -> None:
    mistyped = running.folder / ".magnetra"
    if is_there:
        mistyped.mkdir()
    for command in ("send", "ask"):
        said = refusal(running, command, "shop", "Order", "1", "Buy", BUY, "--data", ".magnetra", code=3)
        assert f"There is no data folder {mistyped}. Run the pipeline first" in said
        assert "or name its folder with --data" in said
    assert (list(mistyped.iterdir()) == []) if is_there else not mistyped.exists()
    if is_there:
        mistyped.rmdir()
