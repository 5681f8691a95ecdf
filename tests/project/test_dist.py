"""`make dist` gives the same bytes each time, and the sdist makes the wheel that the checkout makes."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

EPOCH = 1_700_000_000


def dist(checkout: Path, out: Path) -> Path:
    """What is released of this checkout."""
    command: list[str | Path] = [
        sys.executable,
        "-P",
        checkout / "tools" / "dist.py",
        "--epoch",
        str(EPOCH),
        "--out",
        out,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return out


@pytest.fixture(scope="module")
def released(checkout: Path) -> Path:
    return dist(checkout, checkout.parent / "released")


def contents(wheel: Path) -> dict[str, bytes]:
    """The wheel's files, but for the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_sdist_makes_the_wheel_that_the_checkout_makes(checkout: Path, released: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path,
        checkout,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (ours,), (theirs,) = tmp_path.glob("*.whl"), released.glob("*.whl")
    assert contents(ours) == contents(theirs)
    assert "magnetar/pipelines/cli" in " ".join(contents(theirs))


def test_another_copy_of_the_same_sources_gives_the_same_bytes(checkout: Path, released: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkout, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    again = dist(copy, tmp_path / "again")
    assert {each.name: each.read_bytes() for each in again.iterdir()} == {
        each.name: each.read_bytes() for each in released.iterdir()
    }


def test_the_sums_are_those_of_the_files(released: Path) -> None:
    lines = [line.split("  ") for line in (released / "SHA256SUMS").read_text().splitlines()]
    assert sorted(name for _, name in lines) == sorted(p.name for p in released.iterdir() if p.name != "SHA256SUMS")
    for digest, name in lines:
        assert sha256((released / name).read_bytes()).hexdigest() == digest


def test_nobody_is_named_as_an_owner_in_the_sdist(released: Path) -> None:
    (sdist,) = released.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in archive} == {(0, 0, "", "", EPOCH)}


def test_what_was_there_before_is_not_mixed_in(checkout: Path, released: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-P",
        checkout / "tools" / "dist.py",
        "--epoch",
        "1",
        "--out",
        released,
    ]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "SHA256SUMS" in ran.stderr


def test_what_is_not_committed_is_not_released(checkout: Path, tmp_path: Path) -> None:
    """Told by a stand-in: a machine that tests need not have git."""
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\necho ' M schemas/errors.py'\n")
    git.chmod(0o755)
    command: list[str | Path] = [sys.executable, "-P", checkout / "tools" / "dist.py", "--out", tmp_path / "dist"]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert ran.returncode == 1
    assert "schemas/errors.py" in ran.stderr
