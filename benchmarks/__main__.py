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
from magnetar.pipelines.comparing import SAMPLE_COMMITS
from magnetar.pipelines.runtime import collect_rarely
from magnetar.pipelines.settings import EMBEDDED, Settings

from . import ask, diffing, latency, mirror, observability, processes, rebuilding, recovery, scale, tables, worker
from .broker import BROKERS, running
from .measured import Measured

SCALE_LEAST: Final = 0.8
TABLES_MIN: Final = {"rows": 60_000, "fold": 40_000}
RECOVERY_SECONDS_MAX: Final = 10.0
DIFF_SECONDS_MAX: Final = 30.0
SAMPLE_SECONDS_MAX: Final = 5.0
FROM_MIRROR_SECONDS_MAX: Final = 5.0
OBSERVABILITY_MOST: Final = 0.05
VISIBLE_P99_MS: Final = 1000.0
MEMORY_AGGREGATES_MIN: Final = 1_000_000
"""With fewer aggregates, what the process has free from before is as much as they take."""


class Aims(NamedTuple):
    """What is aimed at on a broker: shares of the floors, rates, and milliseconds of an ask at p50 and p99."""

    worker_share: float
    worker_rate: int
    mirror_share: float
    mirror_rate: int
    idle_p50_ms: float
    idle_p99_ms: float
    busy_p99_ms: float


AIMS: Final = {
    EMBEDDED: Aims(0.5, 25_000, 0.6, 300_000, 10.0, 50.0, float("inf")),
    "pulsar": Aims(0.6, 20_000, 0.0, 150_000, 15.0, 60.0, 150.0),
}


class Broker(NamedTuple):
    """Where the logs are, and what is aimed at there."""

    settings: Settings
    aims: Aims


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
        f"{measured.per_second:,.0f} {unit}/s, {measured.cpu_us:.1f} µs each",
        f"{ratio:.0%} of {floor.per_second:,.0f} {unit}/s, {floor.cpu_us:.1f} µs each ({floor.name})",
        f"{f'{least:.0%}, ' if least else ''}{rate_min:,}/s, all {n:,} read back",
        ratio >= least and measured.per_second >= rate_min and all_there,
    )


def worker_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """A backlog becomes durable commits."""
    (bare, decided), aims = worker.run(broker.settings, commands), broker.aims
    what = "worker: backlog to durable commits"
    yield compared(what, bare, decided, "commands", aims.worker_share, aims.worker_rate, commands)


def processes_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """Two worker processes beside one. What a second one adds is stated: it takes cores that the broker leaves."""
    one = None
    for shared in processes.run(broker.settings, commands):
        one = one or shared
        yield Row(
            f"worker: {shared.processes} process{'es' if shared.processes > 1 else ''}",
            f"{shared.per_second:,.0f} commands/s",
            f"{shared.per_second / one.per_second:.2f} times one; they kept {shared.cores:.1f} cores busy",
            f"stated, all {commands:,} read back",
            shared.counted == commands,
        )


def mirror_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """The log goes into ClickHouse, with twice as many events as the other benchmarks have commands.

    So the ranges are as long as they get in 16 partitions.
    """
    events, aims = 2 * commands, broker.aims
    ready, mirrored, in_python = mirror.run(broker.settings, events)
    what = "mirror: log to ClickHouse"
    yield compared(what, ready, mirrored, "events", aims.mirror_share, aims.mirror_rate, events)
    yield Row(
        "mirror: where Python has to decode",
        f"{in_python.per_second:,.0f} events/s, {in_python.cpu_us:.1f} µs each",
        f"{in_python.per_second / mirrored.per_second:.0%} of {mirrored.per_second:,.0f} events/s, "
        f"{mirrored.cpu_us:.1f} µs each (where ClickHouse does)",
        f"stated, all {events:,} read back",
        in_python.counted == events,
    )


def tables_rows(_: Broker, commands: int) -> Iterator[Row]:
    """The tables of a Rows and of a Fold are filled. How much of that is Python is stated."""
    for alone, filled in tables.run(commands):
        yield Row(
            f"{filled.name}: log to table",
            f"{filled.per_second:,.0f} events/s, {filled.cpu_us:.1f} µs each",
            f"{alone.cpu_us:.1f} µs each, {alone.cpu_us / filled.cpu_us:.0%} of that ({alone.name})",
            f"{TABLES_MIN[filled.name]:,}/s, all {commands:,} read back",
            filled.per_second >= TABLES_MIN[filled.name] and filled.counted == commands,
        )


def rebuilding_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """The table of a fold is rebuilt on a server, by one projector and by two that share its partitions; that of an
    incremental Sql from the mirror, of two and a half times as many events."""
    one = None
    for done in rebuilding.run(broker.settings, commands):
        one = one or done
        yield Row(
            f"rebuild of a fold on a server: {done.projectors} projector{'s' if done.projectors > 1 else ''}",
            f"{done.seconds:.1f} s, {commands / done.seconds:,.0f} events/s",
            f"{one.seconds / done.seconds:.2f} times one",
            f"two are faster than one, all {commands:,} events in the table",
            done.counted == commands and (done is one or done.seconds < one.seconds),
        )
    events = commands * 5 // 2
    found = rebuilding.from_mirror(events)
    yield Row(
        f"rebuild of an incremental Sql from the mirror: {events:,} events",
        f"{found.took.seconds:.1f} s",
        f"{found.took.cpu_seconds:.1f} s of processor time",
        f"{FROM_MIRROR_SECONDS_MAX:.0f} s, all events in the table",
        found.took.seconds < FROM_MIRROR_SECONDS_MAX and found.counted == events,
    )


def diff_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """A fold over the flights is compared, with two and a half times as many commits as the others have commands: with
    the default, that is the year."""
    done = diffing.run(broker.settings, commands * 5 // 2)
    yield Row(
        f"diff of a fold: {done.commits:,} commits of the flights",
        f"{done.seconds:.1f} s",
        f"{done.cpu_seconds:.1f} s of processor time",
        f"{DIFF_SECONDS_MAX:.0f} s, nothing differs",
        done.seconds < DIFF_SECONDS_MAX and done.is_same,
    )
    yield Row(
        f"diff of a sample's commands: {SAMPLE_COMMITS:,} commits of each aggregate",
        f"{done.sample_seconds:.1f} s",
        "what `magnetar dev` says first",
        f"{SAMPLE_SECONDS_MAX:.0f} s",
        done.sample_seconds < SAMPLE_SECONDS_MAX,
    )


def recovery_rows(_: Broker, commands: int) -> Iterator[Row]:
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


def scale_rows(_: Broker, __: int) -> Iterator[Row]:
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


def ask_rows(broker: Broker, _: int) -> Iterator[Row]:
    """What a client waits for an answer of an idle worker and of a busy one; the rate with many asks in flight."""
    answered, aims = ask.run(broker.settings), broker.aims
    idle, busy = answered.idle, answered.busy
    yield Row(
        "ask, idle: p50 and p99",
        f"{idle.p50_ms:.1f} ms and {idle.p99_ms:.1f} ms",
        f"{answered.per_second:,.0f} asks/s with {answered.in_flight:,} in flight",
        f"{aims.idle_p50_ms:.0f} ms and {aims.idle_p99_ms:.0f} ms",
        idle.p50_ms < aims.idle_p50_ms and idle.p99_ms < aims.idle_p99_ms,
    )
    is_aimed_at = aims.busy_p99_ms < float("inf")
    yield Row(
        f"ask, at {ask.SENT_PER_SECOND:,} commands/s: p50 and p99",
        f"{busy.p50_ms:.1f} ms and {busy.p99_ms:.1f} ms",
        f"{busy.sent_per_second:,.0f} commands/s were sent",
        f"p99 {aims.busy_p99_ms:.0f} ms" if is_aimed_at else "stated",
        busy.p99_ms < aims.busy_p99_ms and busy.sent_per_second > 0.99 * ask.SENT_PER_SECOND,
    )


def latency_rows(broker: Broker, _: int) -> Iterator[Row]:
    """How long after its answer a command's row is visible."""
    found = latency.run(broker.settings)
    yield Row(
        f"row visible after its answer, at {ask.SENT_PER_SECOND:,} commands/s: p50 and p99",
        f"{found.p50_ms:.0f} ms and {found.p99_ms:.0f} ms",
        f"{found.sent_per_second:,.0f} commands/s were sent",
        f"p99 {VISIBLE_P99_MS:.0f} ms",
        found.p99_ms < VISIBLE_P99_MS and found.sent_per_second > 0.99 * ask.SENT_PER_SECOND,
    )


def observability_rows(broker: Broker, commands: int) -> Iterator[Row]:
    """What figures and traces add to a command's processor time. How many traces are recorded is the user's choice."""
    for cost in observability.run(broker.settings, commands // 2):
        is_aimed_at = "1 in 100 " not in cost.name
        yield Row(
            f"observed: {cost.name}",
            f"{cost.observed_us:.2f} µs each, {cost.share:+.1%}",
            f"{cost.unobserved_us:.2f} µs each unobserved ({cost.chunks} chunks)",
            f"less than {OBSERVABILITY_MOST:.0%}" if is_aimed_at else "stated",
            cost.share < OBSERVABILITY_MOST or not is_aimed_at,
        )
    yield Row(
        "observed: figures in chunks of 1,000", f"{observability.figures_us():.2f} µs a command", "", "stated", True
    )
    for one_in in (1000, 100):
        took = f"{observability.traces_us(one_in):.2f} µs a command"
        yield Row(f"observed: spans of 1 in {one_in:,}, in chunks of 1,000", took, "", "stated", True)
    yield Row("observed: a scrape", f"{observability.scrape_ms():.1f} ms", "", "stated", True)


BENCHMARKS: Final[dict[str, Callable[[Broker, int], Iterator[Row]]]] = {
    "worker": worker_rows,
    "processes": processes_rows,
    "mirror": mirror_rows,
    "tables": tables_rows,
    "rebuilding": rebuilding_rows,
    "diff": diff_rows,
    "recovery": recovery_rows,
    "scale": scale_rows,
    "ask": ask_rows,
    "latency": latency_rows,
    "observability": observability_rows,
}
EMBEDDED_ALONE: Final = {"tables", "rebuilding", "diff", "recovery", "scale", "latency", "observability"}
"""Of these, there are figures on the embedded log alone."""


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
    parser.add_argument(
        "--broker", choices=BROKERS, default=EMBEDDED, help="pulsar: that of MAGNETAR_BROKER, or an own"
    )
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    collect_rarely()  # as the processes of `magnetar run` do
    started, good = time.monotonic(), True
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | measured | beside | at least | holds |\n|---|---|---|---|---|")
    names = [name for name in BENCHMARKS if arguments.broker == EMBEDDED or name not in EMBEDDED_ALONE]
    with running(arguments.broker) as settings:
        broker = Broker(settings, AIMS[arguments.broker])
        for name in [arguments.only] if arguments.only else names:
            for row in BENCHMARKS[name](broker, arguments.commands):
                cells = (row.what, row.measured, row.beside, row.aim, "yes" if row.holds else "NO")
                print(f"| {' | '.join(cells)} |", flush=True)
                good = good and row.holds
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
