"""How long something took, by the clock and on the processor."""

import time
from typing import NamedTuple, Self


class Took(NamedTuple):
    """Seconds by the clock, and of processor time of this whole process."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def since(cls, start: Self) -> Self:
        """From a moment until now."""
        now = cls.now()
        return cls(now.seconds - start.seconds, now.cpu_seconds - start.cpu_seconds)

    @classmethod
    def now(cls) -> Self:
        """This moment."""
        return cls(time.perf_counter(), time.process_time())


class Measured(NamedTuple):
    """A rate, what one cost, and how many stood there afterwards, read back and counted."""

    name: str
    per_second: float
    cpu_us: float
    """Microseconds of processor time for each: it says more than the rate while other programs run."""
    counted: int

    @classmethod
    def of(cls, name: str, count: int, took: Took, counted: int) -> Self:
        """So many in that time."""
        return cls(name, count / took.seconds, took.cpu_seconds / count * 1e6, counted)
