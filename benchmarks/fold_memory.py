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
from magnetar.pipelines.forking import furthest
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


def fed(pipeline: Pipeline) -> Callable[[Path], str]:
    """Feed all tables of a pipeline to the end of the log; says how long it took."""

    def part(data: Path) -> str:
        log, store = SqliteLog(data, SystemClock()), Store(embedded_dsn(data))
        took = feed(log, store, data, pipeline)
        counted = ""
        if pipeline.projections:
            ((keys, events),) = store.query("SELECT count(), sum(puts) FROM boxes.content")
            counted = f", {events:,} events of {keys:,} keys"
        store.close()
        log.close()
        return f"{took.seconds:.1f} s{counted}"

    return part


def fold_alone(data: Path) -> str:
    """Fill the fold's table and no other one, in an engine of its own."""
    log = SqliteLog(data, SystemClock())
    _, until = furthest(folded, log, ("Box",), None)
    with scratch_folder() as folder:
        scratch, start = Scratch(folded, log, SystemClock(), folder), Took.now()
        filled = scratch.fill(Content, ("Box",), until)
        took = Took.since(start)
        ((keys, events),) = scratch.store.query(f"SELECT count(), sum(puts) FROM {filled.name} FINAL")
        scratch.close()
    log.close()
    return f"{took.seconds:.1f} s, {events:,} events of {keys:,} keys"


def opened(data: Path) -> str:
    """The engine alone."""
    Store(embedded_dsn(data)).close()
    return ""


PARTS: Final[dict[str, Callable[[Path], str]]] = {
    "engine": opened,
    "fold alone": fold_alone,
    "mirror": fed(plain),
    "fold, mirrored before": fed(folded),
    "the same again": fed(folded),
}


def measure(part: str, data: Path) -> None:
    """Run one part in this process, and say how large it became."""
    anonymous, is_over = [0.0], threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_SECONDS):
            anonymous.append(resident("RssAnon"))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    said = PARTS[part](data)
    is_over.set()
    looking.join()
    print(f"{part:24} {resident('VmHWM'):6.0f} MB, {max(anonymous):4.0f} MB of it anonymous; {said}", flush=True)


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
        measure(arguments.part, arguments.data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for part in ("fill", *PARTS):
                size = ["--keys", str(arguments.keys), "--events", str(arguments.events)]
                command = [sys.executable, "-m", "benchmarks.fold_memory", "--data", folder, "--part", part, *size]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
