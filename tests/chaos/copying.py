"""A copy of the flights' log into another context, killed at each of its steps, on any log."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.copying import CHUNK_COMMITS, FAILPOINTS, Copying
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.history import log_of
from magnetar.pipelines.log import Log
from magnetar.pipelines.pipeline import Pipeline
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.schemas import TopicKind, partition_of
from magnetar.schemas.commit import Commit, CommitCodec

from examples.flights.data import Sent, commands, rows
from examples.flights.demo import outgoing
from examples.flights.flight import AlreadyOver, Cancel, Flight
from examples.flights.pipeline import flights
from tests.chaos.processes import Part, eventually, parts

PARTITIONS = 5
FLIGHTS = 2500
"""So many that every new partition is written in several chunks."""


def target(name: str) -> Pipeline:
    """The new context."""
    return Pipeline(name, aggregates=[Flight], partitions=PARTITIONS)


def decide(pipeline: Pipeline, log: Log, settings: Settings, sent: Iterable[Sent]) -> None:
    """Send commands, and let a worker decide them all."""
    provision(pipeline, log)
    wanted = 0
    with SyncClient(pipeline, settings=settings) as client:
        wanted = sum(client.send_many(outgoing(iter(list(sent)), set())))
    rested = threading.Event()
    workers = workers_of(pipeline, log, name="decider", clock=SystemClock())
    decide_until(
        lambda: rested.is_set() or sum(w.decided for w in workers) >= wanted, workers, SystemClock(), idle_seconds=0.1
    )
    for worker in workers:
        worker.close()


def commits_of(pipeline: Pipeline, log: Log) -> dict[int, list[Commit]]:
    """What counts, by partition."""
    topic, codec = pipeline.topic("Flight", TopicKind.EVENTS), CommitCodec(pipeline.schemas["Flight"])
    return {
        partition: [codec.decode(message.payload) for message, _ in log_of(log, topic, partition)]
        for partition in range(pipeline.partitions)
    }


def by_flight(commits: Mapping[int, list[Commit]]) -> dict[str, list[Any]]:
    """What each flight's commits say, in their order, besides where they stand."""
    found: dict[str, list[Any]] = {}
    for commit in (commit for partition in sorted(commits) for commit in commits[partition]):
        said = [getattr(commit, name) for name in commit.__struct_fields__ if name not in ("number", "owner")]
        found.setdefault(commit.aggregate_id, []).append(said)
    return found


def copied_through_kills(folder: Path, name: str, settings: Mapping[str, str]) -> None:
    """1. Fills the log. 2. Copies it, killed at each step. 3. Compares. 4. Goes on in the new context."""
    own = Settings(data=folder / "data", **{key.removeprefix("MAGNETAR_").lower(): v for key, v in settings.items()})  # type: ignore[arg-type]
    log = open_log(own, SystemClock())
    try:
        sent = list(commands(islice(rows(all_months=False), FLIGHTS)))
        decide(flights, log, own, sent)
        copy = Part(folder, "copy", "--partitions", str(PARTITIONS), name=name, settings=settings)
        with parts(copy):
            for failpoint in FAILPOINTS:
                passing = 1 if failpoint in ("topics_made", "all_written", "compared") else 2
                copy.start(f"--at={failpoint}:{passing}:KILL")
                eventually(copy.is_dead, f"killed at {failpoint}", copy)
            copy.start()
            eventually(lambda: copy.exit_code == 0, "the copy has come to its end", copy)
        before, after = commits_of(flights, log), commits_of(target(name), log)
        assert sum(map(len, before.values())) == len(sent)
        assert min(map(len, after.values())) > CHUNK_COMMITS
        assert by_flight(after) == by_flight(before)
        for partition, commits in after.items():
            assert [commit.number for commit in commits] == list(range(1, len(commits) + 1))
            assert {partition_of(commit.aggregate_id, PARTITIONS) for commit in commits} == {partition}
        goes_on(target(name), log, own, sent[0])
        assert commits_of(flights, log) == before
    finally:
        log.close()


def goes_on(pipeline: Pipeline, log: Log, settings: Settings, first: Sent) -> None:
    """A worker takes the new context, remembers the ids, and knows the states."""
    stopped, workers = threading.Event(), workers_of(pipeline, log, name="next", clock=SystemClock())
    thread = threading.Thread(target=decide_until, args=(stopped.is_set, workers, SystemClock()))
    thread.start()
    try:
        with SyncClient(pipeline, settings=settings) as client:
            commits = commits_of(pipeline, log)[partition_of(first.id, PARTITIONS)]
            known = next(commit for commit in commits if commit.aggregate_id == first.id)
            command: Any = first.command
            again = client.ask(Flight, first.id, command, command_id=known.command_id)
            assert (again.outcome, again.position.parts()[3]) == (known.events[0], known.number)
            assert isinstance(client.ask(Flight, first.id, Cancel()).outcome, AlreadyOver)
    finally:
        stopped.set()
        thread.join()
        for worker in workers:
            worker.close()


def copying(log: Log, name: str, **more: Any) -> Copying:
    """A copy in this process."""
    options = {"clock": SystemClock(), "random": random.SystemRandom(), **more}
    return Copying(flights, log, to=name, partitions=PARTITIONS, **options)
