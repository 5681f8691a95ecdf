"""`make bench`: each benchmark beside its floor or its aim, as a Markdown table for docs/benchmarks.md."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from magnetar.pipelines.runtime import collect_rarely

from . import ask, mirror, recovery, scale, worker
from .worker import Measured

SCALE_LEAST: Final = 0.8
RECOVERY_SECONDS_MAX: Final = 10.0
ASK_P50_MS_MAX: Final = 10.0
ASK_P99_MS_MAX: Final = 50.0
MEMORY_AGGREGATES_MIN: Final = 100_000
"""With fewer aggregates, the process itself is more than they are."""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    beside: str
    aim: str
    holds: bool


def compared(what: str, floor: Measured, measured: Measured, unit: str, least: float, rate_min: int, n: int) -> Row:
    """A rate beside its floor, if all that went in was read back."""
    ratio = measured.per_second / floor.per_second
    all_there = floor.counted == measured.counted == n
    return Row(
        what,
        f"{measured.per_second:,.0f} {unit}/s",
        f"{ratio:.0%} of {floor.per_second:,.0f} {unit}/s ({floor.name})",
        f"{least:.0%}, {rate_min:,}/s, all {n:,} read back",
        ratio >= least and measured.per_second >= rate_min and all_there,
    )


def worker_rows(commands: int) -> Iterator[Row]:
    """A backlog becomes durable commits."""
    bare, decided = worker.run(commands)
    yield compared("worker: backlog to durable commits", bare, decided, "commands", 0.5, 25_000, commands)


def mirror_rows(commands: int) -> Iterator[Row]:
    """The log goes into ClickHouse, with twice as many events as the other benchmarks have commands.

    So the ranges are as long as they get in 16 partitions.
    """
    events = 2 * commands
    ready, mirrored = mirror.run(events)
    yield compared("mirror: log to ClickHouse", ready, mirrored, "events", 0.6, 300_000, events)


def recovery_rows(commands: int) -> Iterator[Row]:
    """A partition is taken, with two and a half times as many commits as the other benchmarks have commands."""
    commits = commands * 5 // 2
    for recovered in recovery.run(commits):
        is_aimed_at = recovered.name == "from a checkpoint"
        is_quick = not is_aimed_at or recovered.seconds < RECOVERY_SECONDS_MAX
        yield Row(
            f"recovery {recovered.name}: {commits:,} commits, {recovery.AGGREGATES:,} aggregates, 1 partition",
            f"{recovered.seconds:.1f} s",
            f"the next command found version {recovered.version} of {recovered.expected}",
            f"{RECOVERY_SECONDS_MAX:.0f} s" if is_aimed_at else "stated",
            is_quick and recovered.version == recovered.expected,
        )


def scale_rows(_: int) -> Iterator[Row]:
    """The worker's rate in each case, beside the best of them."""
    cases = list(scale.run())
    best = max(case.per_second for case in cases)
    for case in cases:
        memory = f", {case.bytes_per_aggregate:,.0f} bytes an aggregate"
        yield Row(
            f"scale: {case.aggregates:,} aggregates, {case.types} event types",
            f"{case.per_second:,.0f} commands/s" + (memory if case.aggregates >= MEMORY_AGGREGATES_MIN else ""),
            f"{case.per_second / best:.0%} of the best",
            f"{SCALE_LEAST:.0%}",
            case.per_second >= SCALE_LEAST * best,
        )


def ask_rows(_: int) -> Iterator[Row]:
    """What a client waits for an answer of an idle worker, and the rate with many asks in flight."""
    answered = ask.run()
    yield Row(
        "ask, idle: p50 and p99",
        f"{answered.p50_ms:.1f} ms and {answered.p99_ms:.1f} ms",
        f"{answered.per_second:,.0f} asks/s with {answered.in_flight:,} in flight",
        f"{ASK_P50_MS_MAX:.0f} ms and {ASK_P99_MS_MAX:.0f} ms",
        answered.p50_ms < ASK_P50_MS_MAX and answered.p99_ms < ASK_P99_MS_MAX,
    )


BENCHMARKS: Final[dict[str, Callable[[int], Iterator[Row]]]] = {
    "worker": worker_rows,
    "mirror": mirror_rows,
    "recovery": recovery_rows,
    "scale": scale_rows,
    "ask": ask_rows,
}


def cpu() -> str:
    """The machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> int:
    """Run all, or one; 1 if an aim was missed or a message is missing."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--commands", type=int, default=400_000)
    parser.add_argument("--only", choices=BENCHMARKS, help="run this one alone")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    collect_rarely()  # as the processes of `magnetar run` do
    started, good = time.monotonic(), True
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | measured | beside | at least | holds |\n|---|---|---|---|---|")
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        for row in BENCHMARKS[name](arguments.commands):
            cells = (row.what, row.measured, row.beside, row.aim, "yes" if row.holds else "NO")
            print(f"| {' | '.join(cells)} |", flush=True)
            good = good and row.holds
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
