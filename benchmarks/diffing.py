"""`magnetar diff` of a fold over the year's flights, from the command to its end."""

import json
import resource
import subprocess
import time
from itertools import islice
from typing import Final, NamedTuple

from magnetar.pipelines import SyncClient
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
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        ran = subprocess.run(
            cli_arguments("diff", FLIGHTS, "Board", "--json", "--data", str(settings.data)),
            env=environment(settings),
            capture_output=True,
            check=True,
        )
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Compared(count, seconds, cpu_seconds, json.loads(ran.stdout)["same"])
