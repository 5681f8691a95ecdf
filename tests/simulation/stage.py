"""What simulated things stand on: simulated time, processes that are switched at every effect, and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import greenlet

from tests.simulation.choices import Choices

START_MS: Final = 1_700_000_000_000
EFFECT_MS: Final = 1
"""How long each effect takes."""

FAULTS: Final = {
    "crash": 55,
    "freeze": 45,
    "append is cut off": 14,
    "append is lost": 4,
    "confirmation is lost": 20,
    "hole": 3,
    "late entry": 2,
    "resend": 20,
    "fence is not confirmed": 30,
    "log is unavailable": 120,
    "acknowledgement is lost": 6,
    "reply is lost": 10,
    "reconnect": 25,
    "wrong grant": 8,
    "prefetched is lost": 40,
    "grant denied": 40,
    "death is noticed late": 3,
    "publication is lost": 25,
    "publication is not confirmed": 12,
    "publication is late": 15,
    "store is unavailable": 60,
    "insert is not confirmed": 20,
}
"""Each fault, and once in how many chances it happens; `crash` and `freeze` once in so many turns."""


class Crash(BaseException):
    """The process is killed: nothing of it runs any more, not even what catches errors."""


class Process:
    """A process of the simulation. `run` never returns."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.greenlet = greenlet.greenlet(run)
        self.at = "its start"
        self.wakes_ms = 0
        self.waits = False
        self.dead = False


class Stage:
    """Time, faults, and the process that is running. Outside of a process nothing switches."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.ms = START_MS
        self.faults_on = True
        self.current: Process | None = None
        self.main = greenlet.getcurrent()
        self.trace: list[str] = []

    @property
    def who(self) -> str:
        """The name of the process that is running."""
        return self.current.name if self.current else "nobody"

    def note(self, text: str) -> None:
        """Write down what happens, for the printed schedule."""
        self.trace.append(f"{self.ms - START_MS:>6} ms  {text}")

    def strikes(self, fault: str) -> bool:
        """Whether this fault happens now, to whoever is running."""
        if not self.faults_on or not self.choices.strikes(f"{self.who}:{fault}", FAULTS[fault]):
            return False
        self.note(f"{self.who}: {fault}")
        return True

    def pick(self, what: str, below: int) -> int:
        """A decision about whoever is running; 0 once the faults are over."""
        return self.choices.pick(f"{self.who}:{what}", below) if self.faults_on else 0

    def switch(self, at: str) -> None:
        """Before an effect: the scheduler may let others go on, or end this process here."""
        process = self.current
        if process is None:
            return
        if process.dead:
            raise Crash
        process.at = at
        process.waits = False
        self.main.switch()

    # --- the Clock of the product -----------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        """Wait, and let others go on meanwhile."""
        process = self.current
        if process is None:
            self.ms += int(seconds * 1000)
            return
        if process.dead:
            raise Crash
        process.wakes_ms = max(process.wakes_ms, self.ms + max(1, int(seconds * 1000)))
        process.waits = True
        self.main.switch()
