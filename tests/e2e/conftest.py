"""Running the command line as its users do: as processes, in a folder of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.readme import write_shop

MAGNETAR = Path(sys.executable).with_name("magnetar")


class Shell:
    """One terminal in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_")}
        self.started: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `magnetar …` to its end."""
        return subprocess.run(
            [MAGNETAR, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `magnetar …`, and end it when the test is over."""
        with (self.folder / f"{arguments[0]}.log").open("w") as output:
            process = subprocess.Popen(
                [MAGNETAR, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def eventually(self, holds: Callable[[], bool], what: str, timeout: float = 60) -> None:
        """Wait until something holds; fail with the processes' output if it does not."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {p.name}\n{p.read_text()}" for p in self.folder.glob("*.log"))
                pytest.fail(f"not within {timeout:g} s: {what}\n{logs}")
            time.sleep(0.1)

    def close(self) -> None:
        """End what was started, as Ctrl-C does."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in an empty folder."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def start_dev(shell: Shell, target: str = "shop") -> None:
    """`magnetar dev`, until it is up."""
    shell.start("dev", target)
    shell.eventually(lambda: "Ctrl-C stops it" in (shell.folder / "dev.log").read_text(), "magnetar dev is up")


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """A terminal in a folder with the README's pipeline."""
    write_shop(shell.folder)
    return shell
