"""A shell and a Python interpreter in one folder, that stay from block to block of a page."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 90

_SERVE = """
import contextlib, io, json, os, sys, traceback
asked, answers = sys.stdin, os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.stdin = open(os.devnull)
sys.path.insert(0, os.getcwd())
sys.dont_write_bytecode = True
names = {"__name__": "__main__"}
for line in asked:
    printed, error, wanted = io.StringIO(), "", json.loads(line)
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile("\\n" * (wanted["line"]) + wanted["code"], wanted["page"], "exec"), names)
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps({"printed": printed.getvalue(), "error": error}), file=answers, flush=True)
"""


class Ended(AssertionError):
    """A session ended, or was silent for too long."""


class Session:
    """A process that is asked by lines and answers by lines."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str], errors: Any) -> None:
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        self._read = b""

    def ask(self, line: str, end: bytes) -> str:
        """Write a line, and read up to the end mark."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while end not in self._read:
            readable = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))[0]
            more = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not more:
                raise Ended(f"{line!r} did not come to its end; so far:\n{self._read.decode(errors='replace')}")
            self._read += more
        answer, _, self._read = self._read.partition(end)
        return answer.decode()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Bash(Session):
    """A shell."""

    MARK = "\x1edone\x1e"

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(["bash", "--norc", "--noprofile"], folder, environment, subprocess.STDOUT)

    def run(self, command: str) -> tuple[str, int]:
        """What the command prints, errors among it, and its exit code."""
        line = f"{{ {command}\n}} </dev/null\nprintf '{self.MARK}%s{self.MARK}' $?\n"
        printed = self.ask(line, self.MARK.encode())
        return printed, int(self.ask("\n", self.MARK.encode()))


class Python(Session):
    """An interpreter. Its own noise goes where this process's errors go."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__([sys.executable, "-P", "-c", _SERVE], folder, environment, None)

    def run(self, code: str, *, page: str, line: int) -> str:
        """What the code prints. Raises AssertionError with its traceback."""
        asked = json.dumps({"code": code, "page": page, "line": line})
        answer = json.loads(self.ask(asked + "\n", b"\n"))
        assert not answer["error"], answer["error"]
        printed: str = answer["printed"]
        return printed
