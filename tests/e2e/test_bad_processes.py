"""What comes from other processes: messages that are none, processes that are frozen, ports that are taken, Ctrl-C."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.schemas import Topic, TopicKind, partition_of

from tests.e2e.conftest import DEADLINE_SECONDS, MAGNETAR, Shell, Terminal, start_dev
from tests.e2e.test_cli import parts_of

BUY = '{"sku": "tea", "pieces": 1}'


def test_messages_that_are_no_commands_are_parked_and_hold_nothing_up(shop: Shell) -> None:
    assert shop.run("provision", "shop").returncode == 0
    assert shop.run("send", "shop", "Order", "1", "Buy", BUY).returncode == 0
    topic, home = Topic("shop", "Order", TopicKind.COMMANDS), partition_of("1", 16)
    sent = sent_elsewhere(shop, topic, home)
    log = SqliteLog(shop.folder / ".magnetar", SystemClock())
    publisher = log.publisher(topic, schema=log.schema(topic, 1))
    for partition, entry in (
        (home, Entry("1", b"\xff no command \x00")),
        (home, Entry("1", b"")),
        (home, Entry("2", sent)),
        ((home + 1) % 16, Entry("1", sent)),
    ):
        publisher.publish(partition, [entry], timeout_seconds=DEADLINE_SECONDS)
    log.close()
    start_dev(shop)
    asked = shop.run("ask", "shop", "Order", "1", "Ship", "--json")
    assert json.loads(asked.stdout)["values"] == [{"type": "Shipped", "pieces": 1}], asked.stderr

    def reasons() -> list[str]:
        return sorted(each["reason"] for each in json.loads(shop.run("parked", "shop", "--json").stdout))

    shop.eventually(lambda: len(reasons()) == 4, "all of them are parked")
    assert reasons() == ["misrouted", "misrouted", "undecodable", "undecodable"]


def sent_elsewhere(shell: Shell, topic: Topic, partition: int) -> bytes:
    """The message of a command to Order 1 that stands in another data folder alone."""
    for command in (["provision", "shop"], ["send", "shop", "Order", "1", "Buy", BUY]):
        assert shell.run(*command, "--data", "other").returncode == 0
    log = SqliteLog(shell.folder / "other", SystemClock())
    (sent,) = log.reader(topic, partition, after=None).read(messages_max=1, timeout_seconds=DEADLINE_SECONDS)
    log.close()
    return sent.payload


def test_a_frozen_worker_leaves_an_ask_unknown_and_a_repeat_gets_its_outcome(shop: Shell) -> None:
    start_dev(shop)
    assert shop.run("ask", "shop", "Order", "1", "Buy", BUY).returncode == 0
    worker = parts_of(shop.started[0].pid)["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        asked = shop.run("ask", "shop", "Order", "1", "Ship", "--timeout", "2")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (asked.returncode, asked.stderr.count("\n")) == (3, 1), asked.stderr
    command_id = asked.stderr.split("command ", 1)[1].split()[0]
    again = shop.run("ask", "shop", "Order", "1", "Ship", "--command-id", command_id, "--json")
    assert json.loads(again.stdout)["values"] == [{"type": "Shipped", "pieces": 1}], again.stderr
    assert json.loads(shop.run("history", "shop", "Order", "1", "--json").stdout)["version"] == 2


def test_a_query_says_that_the_process_it_would_wait_for_is_frozen(shop: Shell) -> None:
    start_dev(shop)
    shop.eventually(lambda: shop.run("query", "SELECT 1").returncode == 0, "queries are answered")
    projector = parts_of(shop.started[0].pid)["projector"]
    os.kill(projector, signal.SIGSTOP)
    try:
        ran = shop.run("query", "SELECT 1")
    finally:
        os.kill(projector, signal.SIGCONT)
    assert (ran.returncode, ran.stderr.count("\n")) == (3, 1)
    assert f"kill -CONT {projector}" in ran.stderr
    assert shop.run("query", "SELECT 1").returncode == 0


def test_a_port_that_is_taken_is_named_and_commands_are_decided_all_the_same(shop: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shop.environment["MAGNETAR_QUERY_PORT"] = str(port)
        start_dev(shop)
        log = shop.folder / "dev.log"
        said = f"Port {port} of 127.0.0.1 cannot be used: Address already in use. Set MAGNETAR_QUERY_PORT to another."
        shop.eventually(lambda: said in log.read_text(), "the port is named")
        assert shop.run("ask", "shop", "Order", "1", "Buy", BUY).returncode == 0
    shop.eventually(lambda: "queries are answered" in log.read_text(), "the port is taken when it is free")


OTHER_LINES = ("{", "magnetar: There is no ClickHouse data in", "magnetar: not done yet; it goes on")
"""The log's; the answer, where it came before the signal did; and what a rebuild says of what is left."""


@pytest.mark.parametrize(
    "command",
    ["dev shop", "run shop --role projector", "history shop Order 1", "query SELECT(1)", "rebuild shop"],
)
def test_ctrl_c_at_any_moment_ends_a_command_without_a_word(shop: Shell, command: str) -> None:
    """From the moment on that the command line is imported: before that, it is Python that is interrupted."""
    assert shop.run("provision", "shop").returncode == 0
    for milliseconds in (0, 30, 100, 250, 500, 900):
        process = subprocess.Popen(
            [MAGNETAR, *command.split()],
            cwd=shop.folder,
            env=shop.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        is_imported(process.pid)
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=DEADLINE_SECONDS)[1]
        assert process.returncode in (0, 130, -signal.SIGINT, 3), said
        assert [line for line in said.splitlines() if not line.startswith(OTHER_LINES)] == [], said
    assert shop.run("status", "shop").returncode == 0


def test_ctrl_c_while_python_ends_says_nothing_either() -> None:
    struck = "import atexit, os; atexit.register(os.kill, os.getpid(), 2)"
    code = f"{struck}; from magnetar.pipelines.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (-signal.SIGINT, "")
    assert ran.stdout


def is_imported(pid: int) -> None:
    """Wait until a process has loaded what the command line imports behind its handler of Ctrl-C."""
    deadline = time.monotonic() + 60
    maps = Path(f"/proc/{pid}/maps")
    while "msgspec/_core" not in maps.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # what a process has loaded can only be looked at


def on_terminal(shell: Shell, *arguments: str, **environment: str) -> str:
    """What a command writes to a terminal, with all that steers it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell.folder)
        os.execve(MAGNETAR, ["magnetar", *arguments], {**shell.environment, **environment})
    written = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        written += read
    os.close(terminal)
    os.waitpid(pid, 0)
    return written.decode()


def test_a_terminal_without_colours_gets_none_and_a_narrow_one_nothing_wider(shop: Shell) -> None:
    assert shop.run("provision", "shop").returncode == 0
    for command in (["status", "shop"], ["explain"], ["ask", "--help"]):
        assert "\x1b" not in on_terminal(shop, *command, TERM="dumb")
    for command in (["status", "shop"], ["ask", "--help"]):
        narrow = Terminal(shop, *command)
        assert narrow.wait() == 0
        assert 20 < max(len(line.rstrip()) for line in narrow.shown.splitlines()) <= 60, narrow.shown
