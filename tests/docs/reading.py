"""A reader who does, in a folder of their own, all that a page says."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.docs.pages import ROOT, RUN, Block, Files, Part, Stop, commands, files, parts
from tests.docs.sessions import Bash, Python

DEADLINE_SECONDS = 90

LOOKS = re.compile(r"magnetar (query |status |history |rebuild \S+ --status$|parked \S+( show .*)?$)|.*\| ask\b")
"""Commands that only look: what they show may come a little later, so they are repeated until it does."""

_UNSURE = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", "<time>"),
    (r"\b\d+(\.\d+)? ?(ms|s|seconds)\b", "<duration>"),
    (r"\b(process|pid) \d+", "<pid>"),
    (r"\b\d[\d,.]* (bytes|kB|MB|GB|TB)\b", "<size>"),
    (r"\b\S+-\d+-[0-9a-f]{6}\b", "<worker>"),
    (r"[┃│━─]+|[╇╈┳┻╋┏┓┗┛┡┩└┘├┤┴┬┼]", "│"),  # tables are as wide as what stands in them
    (r"[ \t]+", " "),
    (r" $", ""),
)


def said(text: str) -> str:
    """The text, without what is another one each time: ids, times, processes, and the widths that follow from them."""
    for pattern, name in _UNSURE:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return re.sub(r"(│ ?)+", "│", text).strip("\n")


def fits(printed: str, expected: str) -> bool:
    """Whether this was printed; a line `…` stands for any lines."""
    shown = said(expected)
    if shown == "":
        return said(printed) == ""
    pieces = [re.escape(piece.strip("\n")) for piece in re.split(r"^…$", shown, flags=re.MULTILINE)]
    return re.fullmatch(r"\n*" + r"(\n|.)*?".join(pieces) + r"\n*", said(printed)) is not None


class Reader:
    """Runs a page's blocks in their order."""

    looks_seconds = float(DEADLINE_SECONDS)
    """How long a command that only looks is repeated until it shows what it should."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAGNETAR_", "PYTEST_"))}
        self._environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",  # a file that is written twice in a second would be taken for the old one
            "FIRST_TERMINAL": str(folder / "first-terminal.log"),  # what `magnetar dev` says
        }
        self._bash: Bash | None = None
        self._python: Python | None = None
        self._running: list[subprocess.Popen[bytes]] = []

    def read(self, page: Path) -> None:
        """Do what the page says. Raises AssertionError naming the line where it is wrong."""
        for part in parts(page):
            self.do(part, str(page.relative_to(ROOT)))

    def do(self, part: Part, page: str) -> None:
        """Do what one part of a page says."""
        if isinstance(part, Files):
            for name, text in files(part.of).items():
                self._write(name, text)
        elif isinstance(part, Stop):
            self._stop()
        elif (part.title or part.language in RUN) and not part.not_run:
            self._block(part, f"{page}:{part.line}")

    @property
    def here(self) -> Path:
        """Where the page's shell is: `cd` moves it."""
        return self.folder if self._bash is None else Path(self._shell("pwd -P")[0].strip())

    def close(self) -> None:
        """End what was started."""
        for session in (self._bash, self._python):
            if session is not None:
                session.close()
        self._stop()

    def _stop(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGINT)
        for process in self._running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _block(self, block: Block, where: str) -> None:
        if block.title:
            self._write(block.title, block.text)
            if Path(block.title).name.startswith("test_"):
                self._command(f"pytest -q -p no:cacheprovider {block.title}", "…\n", where)
        elif block.language == "python":
            if self._python is None:
                self._python = Python(self.here, self._environment)
            printed = self._python.run(block.text, page=where.partition(":")[0], line=block.line)
            assert fits(printed, block.printed or ""), difference(where, printed, block.printed or "")
        else:
            for command, expected in commands(block):
                self._command(command, expected, where)

    def _command(self, command: str, expected: str, where: str) -> None:
        if re.match(r"(\w+=\S+ )*magnetar dev ", command):
            self._start(command, where)
            return
        deadline = time.monotonic() + self.looks_seconds
        printed, exit_code = self._shell(command)
        while not fits(printed, expected) and LOOKS.match(command) and time.monotonic() < deadline:
            time.sleep(0.2)
            printed, exit_code = self._shell(command)
        self.judge_command(command, printed, exit_code, expected, where)

    def judge_command(self, command: str, printed: str, exit_code: int, expected: str, where: str) -> None:
        """Raises AssertionError if the page does not say what was printed. A command that fails must say something."""
        told = difference(f"{where}: $ {command}: exit code {exit_code}", printed, expected)
        assert fits(printed, expected), told
        assert exit_code == 0 or expected.strip(" \n…"), told

    def _start(self, command: str, where: str) -> None:
        log = Path(self._environment["FIRST_TERMINAL"])
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", re.sub(r"magnetar dev ", "exec magnetar dev ", command)],
                cwd=self.here,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "Ctrl-C stops it" not in log.read_text():
            assert process.poll() is None, f"{where}: {command} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{where}: {command} is not up:\n{log.read_text()}"
            time.sleep(0.1)

    def _shell(self, command: str) -> tuple[str, int]:
        if self._bash is None:
            self._bash = Bash(self.folder, self._environment)
        return self._bash.run(command)

    def _write(self, name: str, text: str) -> None:
        if self._python is not None:  # it has imported what stood there before
            self._python.close()
            self._python = None
        file = self.here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def difference(where: str, printed: str, expected: str) -> str:
    """Both texts, for people."""
    return f"{where}\n--- printed\n{printed}\n--- the page says\n{expected}"
