"""What is declared, what is explained and what is locked are the same packages."""

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements-dev.lock").read_text().splitlines()
    pins = (re.match(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines)
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def test_every_runtime_dependency_has_its_reason() -> None:
    extras = project()["optional-dependencies"]
    declared = {
        Requirement(line).name for line in (*project()["dependencies"], *extras["embedded"], *extras["tracing"])
    }
    explained = re.findall(
        r"^\| `([\w.-]+)` \| .{10,} \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE
    )
    assert sorted(explained) == sorted(declared)


def test_the_lock_holds_a_fitting_version_of_everything_declared() -> None:
    extras = project()["optional-dependencies"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    lines = [*project()["dependencies"], *(line for extra in extras.values() for line in extra), *build]
    pins = locked()
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            f"run `make lock`: {requirement}"
        )


def test_the_lock_names_no_index() -> None:
    assert "://" not in (ROOT / "requirements-dev.lock").read_text()
