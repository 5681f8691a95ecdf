"""`make bench`: each benchmark beside its floor, as a table, and as Markdown for docs/benchmarks.md."""

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import structlog
from magnetar.pipelines.runtime import collect_rarely

from . import mirror, worker
from .worker import Measured


def cpu() -> str:
    """The machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def show(title: str, floor: Measured, measured: Measured, unit: str, least: float, commands: int) -> bool:
    """Print one comparison as a row; whether it holds."""
    ratio = measured.per_second / floor.per_second
    all_there = floor.counted == measured.counted == commands
    print(
        f"| {title} | {measured.per_second:,.0f} {unit}/s | {floor.per_second:,.0f} {unit}/s ({floor.name}) "
        f"| {ratio:.0%} | {least:.0%} | {measured.counted:,} |"
    )
    return ratio >= least and all_there


def main() -> int:
    """Run all; 1 if a floor was missed or a message is missing."""
    arguments = argparse.ArgumentParser(prog="make bench")
    arguments.add_argument("--commands", type=int, default=400_000)
    commands = arguments.parse_args().commands
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    collect_rarely()  # as the processes of `magnetar run` do
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | measured | floor in the same run | ratio | at least | read back |\n|---|---|---|---|---|---|")
    bare, decided = worker.run(commands)
    ready, mirrored = mirror.run(commands)
    good = [
        show("worker: backlog to durable commits", bare, decided, "commands", 0.5, commands),
        show("mirror: log to ClickHouse", ready, mirrored, "events", 0.6, commands),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
