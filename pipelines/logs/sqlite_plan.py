"""Plan and preflight of the embedded log: a folder, its topics and their schemas."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from magnetar.schemas import DataFolderError, LogUnavailable, Topic, TopicKind
from magnetar.schemas.evolution import evolution

from ..preflight import MISSING, Finding, Severity
from ..provisioning import Sign, Step, WantedTopic
from .sqlite_files import RESTORE, Folder

FREE_BYTES_MIN: Final = 1024**3
"""Below this, a folder is called nearly full: a day's commits may not fit."""

_NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")
"""File systems whose locks or shared memory SQLite cannot rely on (sqlite.org/wal.html, Advantages, 2)."""

_LOST: Final = {
    TopicKind.COMMANDS: "commands that were sent and not decided yet are lost",
    TopicKind.EVENTS: "what was decided there is lost",
    TopicKind.CHECKPOINTS: "a start takes longer",
}


def steps(folder: Folder, topics: Sequence[WantedTopic]) -> Iterator[Step]:
    """The steps from what is in the folder to what is needed."""
    for wanted in topics:
        if not wanted.reader and (missing := folder.missing(wanted.topic, _partitions(folder, wanted))):
            for path in missing:
                yield Step(Sign.REFUSED, f"file {path}", f"it is missing, with what stood in it. {RESTORE}")
            continue
        try:
            partitions = folder.describe(wanted.topic).partitions
            schemas = folder.schemas(wanted.topic)
        except LogUnavailable:
            if wanted.reader:
                yield Step(Sign.KEEP, f"topic {wanted.topic}", wanted.awaited)
                continue
            yield Step(Sign.CREATE, f"topic {wanted.topic}", f"{wanted.partitions} partitions", _do(folder, wanted))
            continue
        if partitions != wanted.partitions:
            yield Step(
                Sign.REFUSED,
                f"topic {wanted.topic}",
                f"it has {partitions} partitions, and the pipeline declares {wanted.partitions}; the number decides "
                "where each aggregate lives, and stays",
            )
            continue
        if wanted.reader:
            continue
        found = evolution(schemas, wanted.schema)
        for refusal in found.refused:
            yield Step(Sign.REFUSED, f"schema of {wanted.topic}", str(refusal))
        if not found.known and not found.refused:
            what = f"a new version with {', '.join(found.added)}" if found.added else "a new version"
            yield Step(Sign.CREATE, f"schema of {wanted.topic}", what, _do(folder, wanted))


def _partitions(folder: Folder, wanted: WantedTopic) -> int:
    """How many the topic has; as many as are wanted, if that cannot be known."""
    try:
        return folder.describe(wanted.topic).partitions
    except (LogUnavailable, DataFolderError):
        return wanted.partitions


def _do(folder: Folder, wanted: WantedTopic) -> Callable[[], None]:
    return lambda: folder.provision(wanted.topic, partitions=wanted.partitions, schema=wanted.schema)


def findings(folder: Folder, topics: Sequence[WantedTopic]) -> Iterator[Finding]:
    """What of the folder would lose the log, or hold it up."""
    subject = f"data folder {folder.path}"
    kind = _file_system(folder.path)
    if kind in _NETWORK:
        yield Finding(
            Severity.DANGEROUS, "file system", subject, kind, "a local one",
            "locks do not hold there, and a partition can get two writers", "MAGNETAR_DATA: a folder on a local disk",
        )  # fmt: skip
    free = shutil.disk_usage(folder.path).free
    if free < FREE_BYTES_MIN:
        yield Finding(
            Severity.WARNING, "free space", subject, f"{free / 2**20:,.0f} MiB", "1 GiB or more",
            "commands are refused once the disk is full", "make room, or MAGNETAR_DATA: another folder",
        )  # fmt: skip
    for wanted in topics:
        for path in folder.missing(wanted.topic, _partitions(folder, wanted)):
            yield Finding(
                Severity.DANGEROUS, "file", str(path), MISSING, "there",
                f"{_LOST[wanted.topic.kind]}, and no worker starts", _mend(wanted.topic, path),
            )  # fmt: skip
    for step in steps(folder, topics):
        if step.subject.startswith("file "):
            continue
        check = step.subject.split()[0]
        if step.sign is Sign.REFUSED:
            yield Finding(
                Severity.DANGEROUS, check, step.subject, step.detail, "as declared", "no worker starts",
                "change the declaration back",
            )  # fmt: skip
        else:
            yield Finding(
                Severity.WARNING, check, step.subject, MISSING, f"there ({step.detail})", "nothing can be decided",
                "magnetar provision MODULE",
            )  # fmt: skip


def _mend(topic: Topic, path: Path) -> str:
    if topic.kind is TopicKind.CHECKPOINTS:
        return f"remove {path.parent}: it is made again from the events"
    return RESTORE[:1].lower() + RESTORE[1:]


def _file_system(path: Path) -> str:
    """The type of the file system, as Linux lists its mounts; unknown elsewhere."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    best = max((m for m in mounts if path.is_relative_to(m[1])), key=lambda m: len(m[1]), default=["", "", "unknown"])
    return best[2]
