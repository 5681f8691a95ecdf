"""Builds what is released into dist/: the sdist, the wheel that is built from it, and SHA256SUMS. The same commit gives
the same bytes: times are those of the commit, owners and the order of files are fixed."""

import argparse
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Build into the folder that is given, dist/ by default, which must hold nothing else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--epoch", type=int, help="Seconds since 1970 to date files with, instead of the commit's.")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if left := [each.name for each in out.iterdir()]:
        sys.exit(f"{out} holds {', '.join(sorted(left))}: remove it first.")
    epoch = commit_time() if arguments.epoch is None else arguments.epoch
    with tempfile.TemporaryDirectory() as scratch:
        build("sdist", ROOT, Path(scratch), epoch)
        (raw,) = Path(scratch).glob("*.tar.gz")
        sdist = out / raw.name
        sdist.write_bytes(normalised(raw, epoch))
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        build("wheel", Path(scratch) / sdist.name.removesuffix(".tar.gz"), out, epoch)
    (wheel,) = out.glob("*.whl")
    check(sdist, wheel)
    lines = [f"{sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in (sdist, wheel)]
    (out / "SHA256SUMS").write_text("".join(lines))
    print("".join(lines), end="")


def commit_time() -> int:
    """When the commit that is checked out was made. What is not committed is not released."""
    status = git("status", "--porcelain")
    if status:
        sys.exit(f"There are changes that are not committed:\n{status}")
    return int(git("log", "-1", "--format=%ct"))


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def build(kind: str, source: Path, out: Path, epoch: int) -> None:
    """Run the build backend on a folder, without a network."""
    command = [sys.executable, "-P", "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    ran = subprocess.run(
        command,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        sys.exit(ran.stdout)


def normalised(sdist: Path, epoch: int) -> bytes:
    """The archive with the commit's time, no owners, and its files in order: setuptools writes those of the machine."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as raw,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in sorted(raw.getmembers(), key=lambda each: each.name):
            member.mtime = epoch
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            archive.addfile(member, raw.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def check(sdist: Path, wheel: Path) -> None:
    """Refuse metadata that an index would refuse, or that says something else in the two archives."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        of_wheel = archive.read(name)
    with tarfile.open(sdist) as tar:
        found = tar.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        of_sdist = found.read() if found else b""
    metadata = Metadata.from_email(of_wheel, validate=True)
    if metadata.description_content_type is None or not metadata.description:
        sys.exit("The package has no description.")
    if of_sdist != of_wheel:
        sys.exit("The metadata of the sdist and of the wheel differ.")


if __name__ == "__main__":
    main()
