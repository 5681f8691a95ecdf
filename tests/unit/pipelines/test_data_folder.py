"""Data folders that cannot be used: each has its words, and nothing is made worse."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.logs.sqlite_files import Folder
from magnetar.schemas import DataFolderError, Topic, TopicKind

TOPIC = Topic("shop", "Order", TopicKind.EVENTS)
SCHEMA = '{"type": "record", "name": "R", "fields": []}'
WIDER = '{"type": "record", "name": "R", "fields": [{"name": "y", "type": "long", "default": 0}]}'


def opened(folder: Path) -> SqliteLog:
    log = SqliteLog(folder, SystemClock())
    log.provision(TOPIC, partitions=2, schema=SCHEMA)
    return log


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(DataFolderError, match=r"not a data folder of Magnetar: it holds 'thesis\.txt'"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    (tmp_path / "data" / "magnetar.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(DataFolderError, match="has format 2; this Magnetar reads format 1"):
        opened(tmp_path / "data")


def test_a_folder_with_a_broken_marker_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    (tmp_path / "data" / "magnetar.json").write_text("{")
    with pytest.raises(DataFolderError, match="cannot be read"):
        opened(tmp_path / "data")


def test_a_missing_partition_is_named_and_not_made_anew(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    missing = tmp_path / "data" / "log" / str(TOPIC) / "1.sqlite"
    missing.unlink()
    with pytest.raises(DataFolderError, match=r"1\.sqlite is missing"):
        opened(tmp_path / "data")
    with pytest.raises(DataFolderError, match=r"1\.sqlite is missing"):
        SqliteLog(tmp_path / "data", SystemClock()).fence(TOPIC, 1, schema=SCHEMA, name="w")
    assert not missing.exists()


def test_a_partition_that_is_no_database_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    path = tmp_path / "data" / "log" / str(TOPIC) / "1.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(DataFolderError, match=r"1\.sqlite cannot be used"):
        SqliteLog(tmp_path / "data", SystemClock()).fence(TOPIC, 1, schema=SCHEMA, name="w")


def test_events_whose_commands_were_decided_are_not_begun_anew(tmp_path: Path) -> None:
    commands = Topic("shop", "Order", TopicKind.COMMANDS)
    log = opened(tmp_path / "data")
    log.provision(commands, partitions=2, schema=SCHEMA)
    log.publisher(commands, schema=SCHEMA).publish(0, [Entry("k", b"x")], timeout_seconds=1)
    events = tmp_path / "data" / "log" / str(TOPIC)
    shutil.rmtree(events)
    opened(tmp_path / "data").close()  # nobody had decided anything
    consumer = log.consumer(commands, name="w")
    while (batch := consumer.receive(messages_max=1, timeout_seconds=10)) is not None:
        consumer.acknowledge(batch.partition, batch.messages[-1].id)
        break
    log.close()
    shutil.rmtree(events)
    with pytest.raises(DataFolderError, match="order-events is missing, with what stood in it"):
        opened(tmp_path / "data")
    assert not events.exists()


@pytest.mark.parametrize("damage", ["magnetar.json", "topic.json", "consumers.sqlite"])
def test_a_missing_file_is_named_and_nothing_made_in_its_place(tmp_path: Path, damage: str) -> None:
    opened(tmp_path / "data").close()
    (missing,) = (tmp_path / "data").rglob(damage)
    missing.unlink()
    before = sorted((tmp_path / "data").rglob("*"))
    for _ in range(2):
        with pytest.raises(DataFolderError, match=f"{damage} is missing"):
            opened(tmp_path / "data")
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_a_broken_description_of_a_topic_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    (tmp_path / "data" / "log" / str(TOPIC) / "topic.json").write_text("{")
    with pytest.raises(DataFolderError, match=r"topic\.json cannot be read"):
        opened(tmp_path / "data")


def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    topic = tmp_path / "data" / "log" / str(TOPIC)
    topic.rename(topic.with_name(f".{topic.name}.making"))
    opened(tmp_path / "data").close()
    assert (topic / "1.sqlite").exists()


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(DataFolderError, match="is not a folder"):
        opened(tmp_path / "data")


def test_a_partition_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    path = tmp_path / "data" / "log" / str(TOPIC) / "0.sqlite"
    log = SqliteLog(tmp_path / "data", SystemClock())
    appender = log.fence(TOPIC, 0, schema=SCHEMA, name="w")
    appender._connection.execute("PRAGMA query_only = ON")  # what root meets instead of a file mode
    with pytest.raises(DataFolderError, match="read-only"):
        appender.append([Entry("k", b"x")], timeout_seconds=1)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_names_are_on_the_disk_before_what_refers_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note_and_sync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_and_sync)
    log = opened(tmp_path / "data")
    topic = tmp_path / "data" / "log" / str(TOPIC)
    assert {str(topic), str(topic.parent), str(tmp_path / "data")} <= set(synced)
    synced.clear()
    log.provision(TOPIC, partitions=2, schema=WIDER)
    assert synced[-1] == str(topic)
    assert "topic.json" in synced[-2]


def test_what_is_appended_or_published_is_waited_for_until_it_is_on_the_disk(tmp_path: Path) -> None:
    log = opened(tmp_path / "data")
    appender, publisher = log.fence(TOPIC, 0, schema=SCHEMA, name="w"), log.publisher(TOPIC, schema=SCHEMA)
    publisher.publish(0, [Entry("k", b"x")], timeout_seconds=1)
    for connection in (appender._connection, publisher._files[0].connection()):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    log.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, text=True, check=False
    )
    if made.returncode:
        # Not root: a limit on the database's own size gives the same error of SQLite.
        yield mount
        shutil.rmtree(mount)
        return
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def test_a_full_disk_loses_nothing_that_was_confirmed(small_disk: Path) -> None:
    log = opened(small_disk / "data")
    appender = log.fence(TOPIC, 0, schema=SCHEMA, name="w")
    if not small_disk.is_mount():
        appender._connection.execute("PRAGMA max_page_count = 100")
    confirmed = 0

    def fill() -> None:
        nonlocal confirmed
        for _ in range(1000):
            appender.append([Entry("k", bytes(10_000))], timeout_seconds=5)
            confirmed += 1

    with pytest.raises(DataFolderError, match="full"):
        fill()
    assert confirmed > 5
    reader = log.reader(TOPIC, 0, after=None)
    assert len(reader.read(messages_max=1000, timeout_seconds=0)) == confirmed
    log.close()


def test_a_folder_may_be_made_by_several_at_a_time(tmp_path: Path) -> None:
    for n in range(20):
        with ThreadPoolExecutor(8) as threads:
            folders = [threads.submit(Folder, tmp_path / str(n)) for _ in range(8)]
        assert {folder.result().path for folder in folders} == {tmp_path / str(n)}
