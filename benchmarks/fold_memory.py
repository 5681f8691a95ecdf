"""What memory a fold over a million keys takes, beside the engine and the mirror. Opt-in.

`python -m benchmarks.fold_memory` writes 1,500,000 events of 1,000,000 keys into an embedded log, and feeds tables from
it: each part in a process of its own, of which the largest resident set is printed. It takes some minutes.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.forking import bounds
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import collect_rarely, provision
from magnetar.pipelines.scratch import Scratch, scratch_folder
from magnetar.projections.store import Store, embedded_dsn

from magnetar import Pipeline

from .domain import Box
from .measured import Took
from .tables import Content, append, feed
from .worker import PARTITIONS

LOOK_SECONDS: Final = 0.005
"""How often it is looked what is anonymous: the kernel keeps the largest of the whole resident set alone."""

plain = Pipeline("boxes", aggregates=[Box], partitions=PARTITIONS)
folded = Pipeline("boxes", aggregates=[Box], projections=[Content], partitions=PARTITIONS)


def fill(data: Path, events: int, keys: int) -> None:
    """Write the log."""
    log = SqliteLog(data, SystemClock())
    provision(plain, log)
    append(log, events, keys)
    log.close()


class Peak:
    """How large this process has been."""

    def __init__(self) -> None:
        self._anonymous, self._is_over = [0.0], threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            self._anonymous[0] = max(self._anonymous[0], resident("RssAnon"))

    def said(self) -> str:
        """The largest resident set until now, and how much was anonymous at most."""
        self._is_over.set()
        self._looking.join()
        return f"{resident('VmHWM'):6.0f} MB, {self._anonymous[0]:4.0f} MB of it anonymous"


def opened(data: Path, peak: Peak) -> str:
    """The engine alone."""
    Store(embedded_dsn(data)).close()
    return peak.said()


def fold_alone(data: Path, peak: Peak) -> str:
    """Fill the fold's table and no other one, in an engine of its own."""
    log = SqliteLog(data, SystemClock())
    until = bounds(folded, log, ("Box",)).now
    with scratch_folder() as folder:
        scratch, start = Scratch(folded, log, SystemClock(), folder), Took.now()
        filled = scratch.fill(Content, ("Box",), until)
        took, said = Took.since(start), peak.said()
        ((keys, events),) = scratch.store.query(f"SELECT count(), sum(puts) FROM {filled.name} FINAL")
        scratch.close()
    log.close()
    return (
        f"{said}; {took.seconds:.1f} s, {took.cpu_seconds:.1f} s of processor time, {events:,} events of {keys:,} keys"
    )


def fed(pipeline: Pipeline) -> Callable[[Path, Peak], str]:
    """Feed all tables of a pipeline to the end of the log."""

    return lambda data, peak: fed_into(Store(embedded_dsn(data)), pipeline, data, peak)


def fed_into(store: Store, pipeline: Pipeline, data: Path, peak: Peak) -> str:
    """The same into a ClickHouse, which is closed then."""
    log = SqliteLog(data, SystemClock())
    took = feed(log, store, data, pipeline)
    said = f"{peak.said()}; {took.seconds:.1f} s, {took.cpu_seconds:.1f} s of processor time"
    if pipeline.projections:
        ((keys, events),) = store.query("SELECT count(), sum(puts) FROM boxes.content")
        said += f", {events:,} events of {keys:,} keys"
    store.close()
    log.close()
    return said


def fed_on_server(data: Path, peak: Peak) -> str:
    """Feed mirror and fold to a ClickHouse of its own: this process is the projector alone."""
    from tests.clickhouse_server import clickhouse

    with tempfile.TemporaryDirectory() as folder, clickhouse(Path(folder)) as server:
        return fed_into(Store(server.endpoint), folded, data, peak)


PARTS: Final[dict[str, Callable[[Path, Peak], str]]] = {
    "engine": opened,
    "fold alone": fold_alone,
    "mirror": fed(plain),
    "fold, mirrored before": fed(folded),
    "the same again": fed(folded),
    "mirror and fold, on a server": fed_on_server,
}


def resident(name: str) -> float:
    """What the kernel says of this process's memory, in MB of 2^20 bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=1_500_000)
    parser.add_argument("--data", type=Path, help="go on with a folder of before")
    parser.add_argument("--part", choices=[*PARTS, "fill"], help="this alone, in this process")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    collect_rarely()
    if arguments.part == "fill":
        fill(arguments.data, arguments.events, arguments.keys)
    elif arguments.part:
        print(f"{arguments.part:24} {PARTS[arguments.part](arguments.data, Peak())}", flush=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for part in ("fill", *PARTS):
                size = ["--keys", str(arguments.keys), "--events", str(arguments.events)]
                command = [sys.executable, "-m", "benchmarks.fold_memory", "--data", folder, "--part", part, *size]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
