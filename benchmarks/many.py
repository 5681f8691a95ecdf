"""Ten million aggregates over sixteen partitions in one worker: what they take of memory, disk and time. Opt-in.

`python -m benchmarks.many` decides a command for each, on the log that the environment names (MAGNETAR_BROKER), and
then takes all partitions again in a new process. Each prints its own largest resident set. It takes half an hour.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import structlog
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry, Log
from magnetar.pipelines.runtime import collect_rarely, provision
from magnetar.pipelines.settings import load_settings, open_log
from magnetar.pipelines.worker import Worker
from magnetar.schemas import TopicKind, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope

from magnetar import Pipeline

from .domain import Box, Put

PARTITIONS = 16
AT_ONCE = 50_000
many = Pipeline("many", aggregates=[Box], partitions=PARTITIONS)
SCHEMA = many.schemas["Box"]
COMMANDS = many.topic("Box", TopicKind.COMMANDS)


def sent(log: Log, ids: range) -> Iterator[int]:
    """Publish a command for each of these aggregates, some at a time; gives how many."""
    codec = CommandCodec(SCHEMA)
    publisher = log.publisher(COMMANDS, schema=SCHEMA.command_json)
    for start in range(ids.start, ids.stop, AT_ONCE):
        entries: dict[int, list[Entry]] = {}
        now_ms = time.time_ns() // 1_000_000
        chunk = ids[start - ids.start : start - ids.start + AT_ONCE]
        for n in chunk:
            id = f"box-{n}"
            envelope = CommandEnvelope(id, uuid7(now_ms, random.getrandbits(60)), now_ms * 1000)
            entries.setdefault(partition_of(id, PARTITIONS), []).append(Entry(id, codec.encode(envelope, Put(1, "x"))))
        for partition, each in entries.items():
            publisher.publish(partition, each, timeout_seconds=120)
        yield len(chunk)
    publisher.close()


def decide(log: Log, ids: range) -> None:
    """One command for each of these aggregates."""
    worker = Worker(
        log,
        Box,
        SCHEMA,
        partitions=PARTITIONS,
        name=f"w{random.getrandbits(32):08x}",
        clock=SystemClock(),
        random=random.SystemRandom(),
    )
    started, total, said = time.monotonic(), 0, 0.0
    for count in sent(log, ids):
        total += count
        while worker.decided < total:
            worker.step(timeout_seconds=1)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            print(f"{total:,} decided in {said - started:,.0f} s, {resident():.2f} GiB at most", flush=True)
    print(
        f"{total:,} commands decided in {time.monotonic() - started:,.0f} s, {resident():.2f} GiB at most", flush=True
    )
    worker.close()


def resident() -> float:
    """The largest resident set of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aggregates", type=int, default=10_000_000)
    parser.add_argument("--again", action="store_true", help="take all partitions of an earlier run, and nothing else")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    collect_rarely()
    log = open_log(load_settings(), SystemClock())
    provision(many, log)
    if arguments.again:
        print("again, in a new process, one command for each of 1,000 aggregates:", flush=True)
        decide(log, range(1000))
    else:
        decide(log, range(arguments.aggregates))
    log.close()
    if not arguments.again:
        subprocess.run([sys.executable, "-m", "benchmarks.many", "--again"], check=True)


if __name__ == "__main__":
    main()
