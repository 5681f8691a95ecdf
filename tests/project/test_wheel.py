"""The wheel holds every file of the rooms, and nothing else of the checkout."""

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOMS = ("schemas", "aggregates", "projections", "pipelines", "helm")


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> zipfile.ZipFile:
    """Built from a checkout in which a room has a nested folder, with a file that is not Python."""
    nested = checkout / "pipelines" / "nested" / "deeper"
    nested.mkdir(parents=True)
    for folder in (nested.parent, nested):
        (folder / "__init__.py").write_text('"""Nested."""\n')
    (nested / "shape.json").write_text("{}\n")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", checkout / "dist", checkout],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = (checkout / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def metadata(wheel: zipfile.ZipFile) -> Message:
    return HeaderParser().parsestr(wheel.read("magnetar-0.1.0.dist-info/METADATA").decode())


def test_it_holds_every_file_of_the_rooms_and_no_other(checkout: Path, wheel: zipfile.ZipFile) -> None:
    expected = {f"magnetar/{file.name}" for file in (checkout / "magnetar").iterdir() if file.is_file()}
    for room in ROOMS:
        files = (file for file in (checkout / room).rglob("*") if file.is_file())
        expected |= {f"magnetar/{file.relative_to(checkout)}" for file in files}
    held = {name for name in wheel.namelist() if not name.startswith("magnetar-0.1.0.dist-info/")}
    assert held == expected
    assert "magnetar/pipelines/nested/deeper/shape.json" in held
    assert "magnetar/py.typed" in held


def test_it_installs_the_command(wheel: zipfile.ZipFile) -> None:
    assert "magnetar = magnetar.pipelines.cli:main" in wheel.read("magnetar-0.1.0.dist-info/entry_points.txt").decode()


def test_the_base_install_has_neither_the_engine_nor_the_development_tools(wheel: zipfile.ZipFile) -> None:
    always = [line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not [line for line in always if line.startswith(("chdb", "pytest", "mypy", "pandas"))]


def test_it_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"
    assert "Apache License" in wheel.read("magnetar-0.1.0.dist-info/licenses/LICENSE").decode()
