"""The flights' Grafana dashboard: each panel's query, as Grafana's plugin sends it, to a running endpoint.

Grafana itself is not run. What it does to a query before it sends it is done here: its variables, the plugin's macros
`$from`, `$to` and `$interval`, and the format, which is in the query.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.flights.data import expected, rows
from tests.e2e.conftest import DEADLINE_SECONDS, Shell, start_dev

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "examples" / "flights" / "dashboard.json").read_text())
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in DASHBOARD["panels"]}
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
PLUGIN = "vertamedia-clickhouse-datasource"
FLIGHTS = 1_000


def seconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp())


def expanded(query: str, *, interval: int = 3600, origins: tuple[str, ...] = ("EWR", "JFK", "LGA")) -> str:
    """What is sent of a query."""
    quoted = ",".join(f"'{origin}'" for origin in origins)
    query = query.replace("${origin:singlequote}", quoted)
    time = DASHBOARD["time"]
    for name, value in (("from", seconds(time["from"])), ("to", seconds(time["to"])), ("interval", interval)):
        query = re.sub(rf"\${name}\b", str(value), query)
    assert "$" not in query, query
    return f"{query} FORMAT JSON"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """`magnetar dev` with the first flights of the year in its tables."""
    folder = tmp_path_factory.mktemp("flights")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shell = Shell(folder)
    demo = [sys.executable, "-m", "examples.flights.demo", "--first", str(FLIGHTS), "--data", ".magnetar"]
    subprocess.run(demo, cwd=folder, env=shell.environment, check=True, timeout=DEADLINE_SECONDS)
    start_dev(shell, "examples.flights")
    shell.eventually(lambda: "queries are answered" in (folder / "dev.log").read_text(), "queries are answered")
    yield shell
    shell.close()


def asked(shell: Shell, query: str) -> dict[str, Any]:
    """What the plugin gets: it sends the query as the body, with the user and the password of the data source."""
    endpoint = json.loads((shell.folder / ".magnetar" / "query-endpoint.json").read_text())
    answer = httpx.post(endpoint["url"], content=query, auth=("default", endpoint["token"]), timeout=60)
    assert answer.status_code == 200, (query, answer.text)
    found: dict[str, Any] = answer.json()
    return found


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert {"title", "uid", "time", "panels", "templating"} <= DASHBOARD.keys()
    assert "id" not in DASHBOARD, "Grafana gives it one"
    assert VARIABLES["datasource"]["query"] == PLUGIN
    assert sorted(panel["id"] for panel in DASHBOARD["panels"]) == list(range(1, len(PANELS) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, "panels lie upon each other"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        (target,) = panel["targets"]
        assert panel["datasource"] == target["datasource"] == {"type": PLUGIN, "uid": "${datasource}"}
        assert target["format"] == ("time_series" if panel["type"] == "timeseries" else "table")
        assert panel["description"]


def test_every_projection_of_the_flights_has_a_panel() -> None:
    from examples.flights.pipeline import flights

    told = " ".join(panel["description"] for panel in PANELS.values())
    assert [each.__name__ for each in flights.projections if each.__name__ not in told] == []


@pytest.mark.parametrize("title", PANELS)
def test_each_panels_query_is_answered_in_the_shape_that_it_shows(shell: Shell, title: str) -> None:
    panel = PANELS[title]
    (target,) = panel["targets"]
    found = asked(shell, expanded(target["query"]))
    assert found["rows"] > 0
    if target["format"] == "time_series":
        first, *others = found["meta"]
        assert first["name"] == "t", "the plugin takes the first column for the time, in milliseconds"
        times = [int(row["t"]) for row in found["data"]]
        assert times == sorted(set(times))
        assert all(seconds(DASHBOARD["time"]["from"]) * 1000 <= t for t in times)
        assert all(re.match(r"U?Int|Float|Array\(Tuple\(", column["type"]) for column in others)


def test_what_the_panels_show_is_what_the_source_says(shell: Shell) -> None:
    want = expected(list(rows(all_months=False))[:FLIGHTS])
    query = PANELS["Departures"]["targets"][0]["query"]
    shown = {
        (origin, datetime.fromtimestamp(int(row["t"]) / 1000, UTC)): int(value)
        for row in asked(shell, expanded(query))["data"]
        for origin, value in row["byOrigin"]
    }
    assert shown == {key: departures for key, (departures, _, _) in want.hourly.items()}
    one = asked(shell, expanded(query, interval=24 * 3600, origins=("JFK",)))["data"]
    of_jfk = sum(departures for (origin, _), (departures, _, _) in want.hourly.items() if origin == "JFK")
    assert sum(int(value) for row in one for _, value in row["byOrigin"]) == of_jfk
    board = asked(shell, expanded(PANELS["The board"]["targets"][0]["query"]))["data"]
    assert sum(int(row["flights"]) for row in board) == len(want.board)
    late = asked(shell, expanded(PANELS["The longest delays"]["targets"][0]["query"]))["data"]
    longest = sorted(want.late.items(), key=lambda each: (-each[1], each[0]))[:50]
    assert [(row["flight"], int(row["delay_minutes"])) for row in late] == longest
    rejected = asked(shell, expanded(PANELS["Rejected commands"]["targets"][0]["query"]))["data"]
    assert {row["reason"]: int(row["commands"]) for row in rejected} == want.rejections


def test_the_airports_are_those_of_the_tables(shell: Shell) -> None:
    found = asked(shell, f"{VARIABLES['origin']['query']} FORMAT JSON")
    assert [row["origin"] for row in found["data"]] == ["EWR", "JFK", "LGA"]
