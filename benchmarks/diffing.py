"""`magnetar diff` of a fold over the year's flights, from the command to its end."""

import json
import resource
import subprocess
import time
from itertools import islice
from typing import Final, NamedTuple

from magnetar.pipelines import SyncClient
from magnetar.pipelines.comparing import SAMPLE_COMMITS
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.supervisor import cli_arguments

from examples.flights import flights
from examples.flights.data import commands, rows
from examples.flights.demo import commits_in_tables, outgoing

from .ask import working
from .broker import environment, fresh

FLIGHTS: Final = "examples.flights"
DEADLINE_SECONDS: Final = 900.0
LOOK_SECONDS: Final = 0.5


class Compared(NamedTuple):
    """One comparison of the fold Board: how many commits, and what it took."""

    commits: int
    seconds: float
    cpu_seconds: float
    is_same: bool
    sample_seconds: float
    """What `magnetar dev` says first behind a save: the commands of a sample, decided once more."""


def filled(settings: Settings, commands_max: int) -> int:
    """Carry so many commands of the year through worker and projector; returns how many there were."""
    with working(settings, flights, FLIGHTS, ["worker", "projector"]):
        with SyncClient(flights, settings=settings) as client:
            year = islice(commands(rows(all_months=True)), commands_max)
            count = sum(client.send_many(outgoing(year, set())))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while commits_in_tables(settings.data) < count:
            assert time.monotonic() < deadline, "the tables were not filled in time"
            time.sleep(LOOK_SECONDS)  # ClickHouse tells nobody of a new row: they are counted again
    return count


def run(broker: Settings, commands_max: int) -> Compared:
    """Fill the tables of the flights, and compare one of them, with nothing else running."""
    with fresh(broker) as settings:
        count = filled(settings, commands_max)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, said = told(settings, "Board")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        sample_seconds, _ = told(settings, "--commands", "--sample", str(SAMPLE_COMMITS))
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Compared(count, seconds, cpu_seconds, json.loads(said)["same"], sample_seconds)


def told(settings: Settings, *arguments: str) -> tuple[float, str]:
    """Run the command; returns how many seconds it took, and what it said."""
    start = time.monotonic()
    ran = subprocess.run(
        cli_arguments("diff", FLIGHTS, *arguments, "--json", "--data", str(settings.data)),
        env=environment(settings),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return time.monotonic() - start, ran.stdout
