"""Whether a log is there from its start: tables are filled from there."""

from __future__ import annotations

from magnetar.schemas import LogUnavailable, ReadRule, Topic
from magnetar.schemas.commit import head_in_log

from .log import Log

_GAP_SECONDS = 0.5


def check_begins(log: Log, topic: Topic, partitions: int) -> None:
    """Raises LogUnavailable, naming partition and number, if the first commits of a partition are gone."""
    for partition in range(partitions):
        if (number := begins_at(log, topic, partition)) is not None:
            raise LogUnavailable(
                f"{topic} partition {partition} begins with commit {number:,}: those before it are gone, so that no "
                "table can be filled from it. Nothing was begun.",
                cure="The tables that are shown go on as they are, and `--from mirror` fills projections from them. "
                "Was the log trimmed? `magnetar doctor` looks at its retention; a backup of the log has what is gone.",
            )


def begins_at(log: Log, topic: Topic, partition: int) -> int | None:
    """The number of the first commit of a partition, if it is not 1."""
    if log.end(topic, partition) is None:
        return None
    rule, reader = ReadRule(), log.reader(topic, partition, after=None)
    try:
        while rule.expected == 1 and not rule.is_cut:
            run = reader.read_run(messages_max=100, timeout_seconds=_GAP_SECONDS)
            if run is None:
                break
            for payload in run.payloads:
                rule.judge(*head_in_log(payload, run.last))
        return rule.begins_at
    finally:
        reader.close()
