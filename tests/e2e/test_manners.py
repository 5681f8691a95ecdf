"""How the command line behaves: help, completion, exit codes, errors, pipes, narrow terminals."""

import inspect
import json
import signal
import subprocess
import sys

import pytest
from magnetar.pipelines.cli import talking
from magnetar.projections.freshness import WAIT_SECONDS

from tests.e2e.conftest import DEADLINE_SECONDS, MAGNETAR, Shell, start_dev

COMMANDS = (
    "new", "dev", "run", "send", "ask", "query", "topology", "status", "history", "parked", "transitions", "explain"
)  # fmt: skip
HEAVY = (
    "chdb",
    "clickhouse_connect",
    "fastavro",
    "httpx",
    "pulsar",
    "pydantic_settings",
    "starlette",
    "structlog",
    "uvicorn",
)


def test_help_names_every_command_and_the_exit_codes(shell: Shell) -> None:
    ran = shell.run("--help")
    assert ran.returncode == 0
    for command in COMMANDS:
        assert f"│ {command} " in ran.stdout
    assert "10 rejected, 11 parked" in " ".join(ran.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(shell: Shell, command: str) -> None:
    ran = shell.run(command, "--help")
    assert ran.returncode == 0
    assert "Example" in ran.stdout
    assert ran.stdout.replace("\n", " ").count(f"magnetar {command}") >= 2  # the usage, and an example


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ask", "--help"], ["new"]])
def test_help_waits_for_no_engine(arguments: list[str]) -> None:
    program = f"""
import sys
from magnetar.pipelines.cli import main
sys.argv = ["magnetar", *{arguments}]
try:
    main()
except SystemExit:
    pass
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY}))
assert not heavy, heavy
assert "magnetar.pipelines.client" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True, timeout=DEADLINE_SECONDS, capture_output=True)


def test_a_narrow_terminal_gets_narrow_help(shell: Shell) -> None:
    shell.environment |= {"COLUMNS": "60", "TERMINAL_WIDTH": "60"}
    ran = shell.run("parked", "--help")
    assert max(map(len, ran.stdout.splitlines())) <= 60


@pytest.mark.parametrize("setting", ["NO_COLOR", ""])
def test_what_is_piped_has_no_colours(shell: Shell, setting: str) -> None:
    shell.environment |= {setting: "1"} if setting else {}
    for arguments in (["--help"], ["explain"], ["ask", "nothing", "A", "1", "B"]):
        ran = shell.run(*arguments)
        assert "\x1b" not in ran.stdout + ran.stderr


def test_the_shell_completes_commands(shell: Shell) -> None:
    shell.environment |= {"_MAGNETAR_COMPLETE": "complete_bash", "COMP_WORDS": "magnetar to", "COMP_CWORD": "1"}
    assert shell.run().stdout.split() == ["topology"]


def completed(shell: Shell, words: str) -> list[str]:
    """What bash would offer for the last word."""
    place = str(len(words.split(" ")) - 1)
    shell.environment |= {"_MAGNETAR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": place}
    return shell.run().stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("magnetar ask shop ", ["Order"]),
        ("magnetar history shop Or", ["Order"]),
        ("magnetar send shop Order 42 ", ["Buy", "Ship"]),
        ("magnetar ask shop Order 42 Sh", ["Ship"]),
        ("magnetar ask shop Basket 42 ", []),
        ("magnetar ask nothing ", []),
        ("magnetar rebuild shop ", ["Order"]),
        ("magnetar explain Outcome", ["OutcomeUnknown"]),
    ],
    ids=str,
)
def test_the_shell_completes_the_names_that_the_pipeline_declares(shop: Shell, words: str, names: list[str]) -> None:
    file = shop.folder / "shop.py"
    file.write_text(file.read_text() + "print('Loaded')\n")
    assert completed(shop, words) == names


def test_completion_is_installed_for_the_shell_that_asks(shell: Shell) -> None:
    shell.environment |= {"HOME": str(shell.folder), "PATH": f"{MAGNETAR.parent}:{shell.environment['PATH']}"}
    command = "magnetar --show-completion && magnetar --install-completion; true"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=shell.folder, env=shell.environment, capture_output=True, text=True, check=False
    )
    assert "complete -o default -F _magnetar_completion magnetar" in ran.stdout, ran.stderr
    assert "bash completion installed" in ran.stdout
    assert ".bash_completions/magnetar.sh" in (shell.folder / ".bashrc").read_text()


def query(shop: Shell, *arguments: str) -> str:
    ran = shop.run("query", *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_an_answer_without_rows_says_so_to_people_alone_and_others_are_drawn(shop: Shell) -> None:
    start_dev(shop)
    shop.eventually(lambda: shop.run("query", "SELECT 1").returncode == 0, "queries are answered")
    nothing = "SELECT * FROM shop.best_sellers"
    assert query(shop, nothing) == "sku  sold\n0 rows\n"
    assert query(shop, nothing, "--format", "csv") == '"sku","sold"\n'
    assert query(shop, nothing, "--format", "jsonl") == ""
    assert json.loads(query(shop, nothing, "--json"))["rows"] == 0
    assert query(shop, f"{nothing} FORMAT Null") == ""
    shop.environment["COLUMNS"] = "40"
    some = "SELECT number AS n, number * 10 AS tens FROM numbers(3)"
    assert query(shop, some, "--plot").splitlines()[0] == "tens by n, 3 rows"
    assert query(shop, some, "--format", "plot").splitlines()[-1].startswith("2 ██████")
    assert max(map(len, query(shop, f"{some.replace('3', '300')}", "--plot").splitlines())) <= 40
    refused = shop.run("query", "SELECT 'a', 'b'", "--plot")
    assert (refused.returncode, "a plot's second column is a number" in refused.stderr) == (2, True)
    refused = shop.run("query", "SELECT 1 FORMAT CSV", "--plot")
    assert (refused.returncode, "Leave FORMAT out of the query" in refused.stderr) == (2, True)


def test_output_can_be_binary_and_need_not_be_read_to_its_end(shop: Shell) -> None:
    start_dev(shop)
    shop.eventually(lambda: shop.run("query", "SELECT 1").returncode == 0, "queries are answered")
    arrow = subprocess.run(
        [MAGNETAR, "query", "SELECT 1 AS n", "--format", "arrow"],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        check=False,
    )
    assert (arrow.stdout[:6], arrow.stdout[-6:]) == (b"ARROW1", b"ARROW1")
    command = f"{MAGNETAR} query 'SELECT number FROM numbers(1000000)' --format csv | head -n 1"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=shop.folder, env=shop.environment, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ('"number"\n', "")


def test_ctrl_c_while_a_command_waits_ends_it_without_a_word(shop: Shell) -> None:
    start_dev(shop)
    shop.close()
    asking = shop.start("ask", "shop", "Order", "1", "Ship")
    shop.eventually(lambda: '"undecided":1' in shop.run("status", "shop", "--json").stdout, "it is asked")
    asking.send_signal(signal.SIGINT)
    assert asking.wait(DEADLINE_SECONDS) == 130
    told = (shop.folder / "ask.log").read_text()  # that nobody decides, if that had been said before
    assert told == "" or (told.startswith("magnetar: no worker takes commands") and told.count("\n") == 1)


def test_an_error_is_one_line_that_names_its_page(shell: Shell) -> None:
    ran = shell.run("dev", "nothing")
    assert ran.stderr.endswith("(magnetar explain SettingsError)\n")
    assert ran.stderr.count("\n") == 1
    page = shell.run("explain", "SettingsError")
    assert "Fault: yours" in page.stdout
    unknown = shell.run("explain", "Nonsense")
    assert (unknown.returncode, "There is no error 'Nonsense'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("value", ["", "1"])
def test_debug_shows_the_traceback_and_changes_nothing_else(shop: Shell, value: str) -> None:
    (shop.folder / "broken.py").write_text("def deep():\n    return {}['tea']\n\n\ndeep()\n")
    shop.environment["MAGNETAR_DEBUG"] = value
    for command, code, line in (
        (["dev", "nothing"], 2, "raise SettingsError("),
        (["topology", "broken"], 2, "return {}['tea']"),
        (["status", "shop"], 3, "raise DataFolderError("),
    ):
        ran = shop.run(*command)
        *before, last = ran.stderr.splitlines()
        assert (ran.returncode, last.startswith("magnetar: ")) == (code, True), ran.stderr
        assert (line in ran.stderr, "Traceback (most recent call last):" in before) == (bool(value), bool(value))


@pytest.mark.parametrize("debug", ["", "1"])
def test_an_error_of_ours_asks_for_a_report(shell: Shell, debug: str) -> None:
    shell.environment["MAGNETAR_DEBUG"] = debug
    (shell.folder / "sitecustomize.py").write_text(
        "import magnetar.pipelines.new_project as it\n\n\ndef broken(*_):\n    raise KeyError('lost')\n\n\n"
        "it.make_project = broken\n"
    )
    shell.environment["PYTHONPATH"] = str(shell.folder)
    ran = shell.run("new", "shop")
    assert ran.returncode == 70
    *before, last = ran.stderr.splitlines()
    assert last.startswith("magnetar: an error within Magnetar: KeyError: 'lost' (sitecustomize.py:5). Please report")
    assert ("raise KeyError('lost')" in ran.stderr, bool(before)) == (bool(debug), bool(debug))


def test_a_query_waits_for_the_tables_as_long_as_a_client() -> None:
    assert inspect.signature(talking.query).parameters["wait"].default == WAIT_SECONDS
