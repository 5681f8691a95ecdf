"""The figures of the page on sizing are those of the benchmarks, of the code, of the chart, and of a small run."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from magnetar.aggregates.budget import IDS_MAX, STATES_MAX
from magnetar.projections.query import QueryFormat, query
from msgspec.json import decode

from tests.docs.pages import ROOT, Block, parts

PAGE = ROOT / "docs" / "operations.md"
SIZING = PAGE.read_text().partition("## Sizing")[2].partition("## Pulsar in production")[0]
EMBEDDED, _, PULSAR = (ROOT / "docs" / "benchmarks.md").read_text().partition("On Pulsar, the broker in one process")
PULSAR_BYTES = 32
"""What Pulsar adds to a message in a batch: its key, its size, its properties."""


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The constants of the worked example, which another test runs."""
    (block,) = [part for part in parts(PAGE) if isinstance(part, Block) and "WORKER_US" in part.text]
    constants = "\n".join(line for line in block.text.splitlines() if re.match(r"[A-Z]", line))
    found: dict[str, Any] = {}
    exec(constants, found)
    return found


def seen(benchmarks: str, pattern: str) -> float:
    match = re.search(pattern, benchmarks)
    assert match is not None, pattern
    return float(match[1].replace(",", ""))


def test_the_figures_are_those_of_the_benchmarks(example: dict[str, Any]) -> None:
    rate, each = r"durable commits \| ([\d,]+) commands/s", r"durable commits \| [\d,]+ commands/s, ([\d.]+) µs"
    assert example["WORKER_US"] == seen(PULSAR, each)
    assert example["MIRROR_US"] == seen(PULSAR, r"to ClickHouse \| [\d,]+ events/s, ([\d.]+) µs")
    assert example["STATE_BYTES"] == seen(EMBEDDED, r"As objects they took \d+ bytes instead of (\d+)")
    assert example["RECOVERY_SECONDS"] == seen(EMBEDDED, r"recovery from a checkpoint[^|]*\| ([\d.]+) s") / 100_000
    for per_second in (seen(PULSAR, rate), seen(PULSAR, r"1 process \| ([\d,]+)"), seen(EMBEDDED, rate)):
        assert f"{round(per_second, -3):,.0f}" in SIZING
    for benchmarks in (EMBEDDED, PULSAR):
        per_second = seen(benchmarks, r"to ClickHouse \| ([\d,]+) events/s")
        assert f"{round(per_second, -3):,.0f} events/s" in SIZING
    from_the_log_us = seen(EMBEDDED, r"recovery from the log[^|]*\| ([\d.]+) s")
    assert f"{from_the_log_us:g} µs a commit" in SIZING
    for asked in ("ask, idle", "ask, at 5,000 commands/s"):
        p99_ms = seen(PULSAR, rf"{asked}: p50 and p99 \| [\d.]+ ms and ([\d.]+) ms")
        assert f"within {p99_ms:.0f} ms" in SIZING


def test_what_a_worker_can_take_fits_what_the_chart_gives_it(example: dict[str, Any]) -> None:
    assert example["STATES_MAX"] == STATES_MAX
    assert f"{IDS_MAX:,} ids" in SIZING
    states_mb, ids_mb = STATES_MAX * example["STATE_BYTES"] // 10**6, IDS_MAX * example["ID_BYTES"] // 10**6
    whole_mb = example["PROCESS_MB"] + states_mb + ids_mb
    assert f"{example['PROCESS_MB']} + {states_mb} + {ids_mb} = {whole_mb} MB" in SIZING
    values = yaml.safe_load((ROOT / "helm" / "magnetar" / "values.yaml").read_text())
    assert values["workerDefaults"]["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert values["projector"]["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "6Gi"}}
    assert values["projector"]["storage"]["size"] == "50Gi"
    assert whole_mb * 10**6 < 2**30


def test_a_small_run_takes_the_disk_that_the_page_says(example: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.flights.demo", "--data", str(tmp_path), "--first", "2000"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAGNETAR_")}
    subprocess.run(command, cwd=ROOT, env=clean, check=True, capture_output=True)
    commands, events = (payloads(tmp_path / "log" / "flights" / f"flight-{kind}") for kind in ("commands", "events"))
    assert commands + PULSAR_BYTES == pytest.approx(example["COMMAND_BYTES"], rel=0.05)
    assert events + PULSAR_BYTES == pytest.approx(example["COMMIT_BYTES"], rel=0.05)
    sql = (
        "SELECT sum(bytes_on_disk) AS bytes, max(rows) AS rows FROM (SELECT table, sum(bytes_on_disk) AS bytes_on_disk,"
        " sum(rows) AS rows FROM system.parts WHERE active AND table LIKE 'flight\\_\\_%' GROUP BY table)"
    )
    tables = decode(query(tmp_path, sql, QueryFormat.JSONL))
    # Small parts are compressed less: 84 bytes here, 66 with thirteen times as many.
    assert tables["bytes"] / tables["rows"] == pytest.approx(example["ROW_BYTES"], rel=0.5)


def payloads(folder: Path) -> float:
    """How many bytes a message of a topic has on average, without what the log adds."""
    messages = size = 0
    for path in folder.glob("[0-9]*.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM messages").fetchone()
            messages, size = messages + found[0], size + found[1]
    return size / messages
