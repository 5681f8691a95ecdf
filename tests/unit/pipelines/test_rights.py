"""The rights that docs/operations.md lists, given to the engine's user for real: they are enough, and needed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from magnetar.pipelines.server_preflight import _NEEDED
from magnetar.projections.columns import literal

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
STATEMENTS = re.findall(r"^(?:CREATE USER|GRANT) .*;$", PAGE, re.MULTILINE)
FILES = "GRANT FILE ON *.*"
"""The engine in this process reads a block from a file, where a server has it sent along."""


def granted_to(user: str) -> list[str]:
    """What the page grants to a user, for the flights, as `users.xml` takes it."""
    found = [re.fullmatch(r"(GRANT .*) TO (.*);", each) for each in STATEMENTS]
    return [each[1].replace("shop.", "flights.") for each in found if each and user in each[2].split(", ")]


def under(folder: Path, grants: Sequence[str], *sql: str) -> subprocess.CompletedProcess[str]:
    """An engine is one per process, and so are its rights."""
    script = f"import sys, runpy; sys.path.append({str(ROOT)!r}); runpy.run_module({MODULE!r}, run_name='__main__')"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAGNETAR_")}
    command = [sys.executable, "-c", script, str(folder), *grants, "--", *sql]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=clean)


MODULE = "tests.unit.pipelines.under_rights"


def test_each_statement_parses_and_names_rights_that_the_engine_knows(tmp_path: Path) -> None:
    wrong = "GRANT FLYING ON shop.* TO reader;"
    parsed = [f"SELECT formatQuerySingleLine({literal(each)})" for each in (*STATEMENTS, wrong)]
    ran = under(tmp_path, granted_to("reader"), *parsed)
    *done, refused = json.loads(ran.stdout.splitlines()[-1])
    assert done == ["done"] * 8
    assert "Syntax error" in refused


def test_the_doctor_asks_for_what_the_page_lists() -> None:
    for where, rights in _NEEDED.items():
        on = where.format(context="flights")
        listed = [grant for grant in granted_to("projector") if grant.endswith(f" ON {on}")]
        assert [f"GRANT {rights} ON {on}"] == listed


def test_a_projector_and_a_reader_do_with_them(tmp_path: Path) -> None:
    projected = under(tmp_path, [*granted_to("projector"), FILES])
    assert projected.returncode == 0, projected.stderr
    assert json.loads(projected.stdout.splitlines()[-1]) == [["UA1", "Scheduled"], ["UA2", "Scheduled"]]
    refused = {
        "INSERT INTO flights.board__g2 SELECT * FROM flights.board__g2": "INSERT",
        "DROP VIEW flights.board": "DROP VIEW",
        "TRUNCATE TABLE magnetar.leases": "TRUNCATE",
        "SELECT * FROM file('rows', 'LineAsString')": "READ ON FILE",
    }
    shown = ("SELECT * FROM flights.board", "SELECT * FROM flights.freshness", "SELECT * FROM magnetar.generations")
    read = under(tmp_path, granted_to("reader"), *shown, *refused)
    assert read.returncode == 0, read.stderr
    said = json.loads(read.stdout.splitlines()[-1])
    assert said[: len(shown)] == ["done"] * len(shown)
    for what, right in zip(said[len(shown) :], refused.values(), strict=True):
        assert f"it's necessary to have the grant {right}" in what


@pytest.mark.parametrize("right", ["CREATE TABLE, ", "DROP TABLE, ", "ALTER TABLE, "])
def test_without_one_of_them_the_projector_is_refused(tmp_path: Path, right: str) -> None:
    ran = under(tmp_path, [*(grant.replace(right, "") for grant in granted_to("projector")), FILES])
    assert ran.returncode != 0
    assert "Not enough privileges" in ran.stderr
