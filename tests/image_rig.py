"""Images and containers without a Docker engine: buildah builds, podman runs, both in a store of the tests' own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.pulsar_rig import CACHE, RigError

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("buildah", "mmdebstrap", "podman", "runc")
BASE: Final = "localhost/magnetar-base:bookworm"
STORE: Final = CACHE / "containers"
_CONFIG: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_TRUSTED: Final = ("/etc/ssl/certs", "/usr/share/ca-certificates", "/etc/pip.conf")
"""What pip in a build must find as it does outside: whom it trusts, and where it asks."""


def require() -> None:
    """Raises RigError if images cannot be built here, with what is missing."""
    missing = [name for name in PACKAGES if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        raise RigError(f"Images are built by root, with: apt-get install {' '.join(PACKAGES)}")


def base() -> str:
    """The base image, made once for all checkouts: Debian with Python, in place of `python:3.11-slim-bookworm`."""
    require()
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE.parent / "containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run("podman", "image", "exists", BASE).returncode != 0:
            with tempfile.TemporaryDirectory() as folder:
                rootfs = f"{folder}/rootfs.tar"
                wanted = "--include=python3-minimal,python3-venv,ca-certificates"
                made = subprocess.run(["mmdebstrap", "--variant=minbase", wanted, "bookworm", rootfs], check=False)
                if made.returncode != 0:
                    raise RigError("mmdebstrap could not make the base image: see above.")
                done(run("podman", "import", rootfs, BASE))
    return BASE


def run(program: str, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run podman or buildah on the store of the tests, to its end."""
    config = STORE.with_name("containers.conf")
    config.write_text(_CONFIG)
    environment = {**os.environ, "CONTAINERS_CONF": str(config), "STORAGE_DRIVER": "overlay"}
    command = [program, "--root", str(STORE), "--runroot", str(STORE.with_name("containers-run")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)


def done(ran: subprocess.CompletedProcess[str]) -> str:
    """What it printed. Raises RigError if it failed."""
    if ran.returncode != 0:
        raise RigError(f"{' '.join(map(str, ran.args))} failed:\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return ran.stdout.strip()


def new_project(folder: Path, name: str) -> Path:
    """What `magnetar new` makes, with a wheel of this checkout, as the project's README says."""
    project = folder / name
    subprocess.run([Path(sys.executable).with_name("magnetar"), "new", name], cwd=folder, check=True)
    wheel = f"build --wheel --no-isolation --outdir {project / 'vendor'} {ROOT}"
    subprocess.run([sys.executable, "-m", *wheel.split()], check=True, capture_output=True)
    return project


def build(project: Path, tag: str) -> str:
    """Build a project's Dockerfile, on the base of the tests."""
    mounts = [f"--volume={path}:{path}:ro" for path in _TRUSTED if Path(path).exists()]
    options = ["--isolation=chroot", "--network=host", "--build-arg", f"BASE={base()}", *mounts]
    done(run("buildah", "bud", *options, "--tag", tag, str(project)))
    return tag
