"""File systems of a test's own: small ones, and ones that cannot be written."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell

SMALL = 'mount -t tmpfs -o size="$1" tmpfs "$0"'
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"'


class Disk(Shell):
    """A terminal in a folder on which something is mounted, in a namespace that ends with the test.

    The folder holds what the test's processes write down beside; `path` is how the test sees what is mounted there.
    """

    def __init__(self, folder: Path, mount: str, *arguments: str) -> None:
        super().__init__(folder)
        self._holder = _mounted(folder, mount, *arguments)
        pid = str(self._holder.pid)
        same_user = Path(f"/proc/{pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink()
        user = [] if same_user else ["--user", "--preserve-credentials"]
        go_there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
        self.within = ["nsenter", "--target", pid, "--mount", *user, "--", *go_there]
        self.path = Path(f"/proc/{pid}/root{folder}")

    def fill(self) -> None:
        """Take all room that is left."""
        with (self.path / "fill").open("wb", buffering=0) as file:
            for size in (65536, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def make_room(self) -> None:
        """Give it back."""
        (self.path / "fill").unlink()

    def close(self) -> None:
        """End what was started, and what is mounted with it."""
        super().close()
        self._holder.kill()
        self._holder.communicate()


def _mounted(folder: Path, mount: str, *arguments: str) -> subprocess.Popen[str]:
    """A process in whose namespace it is mounted. As root, or as anybody where users may make namespaces."""
    said = ""
    for flags in ("-rm", "-m"):
        process = subprocess.Popen(
            ["unshare", flags, "sh", "-c", f"{mount} && echo mounted && exec sleep infinity", folder, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() == "mounted\n":
            return process
        said += f"unshare {flags}: {process.communicate()[1]}"
    pytest.fail(
        "This test mounts a file system of its own. It needs `unshare`, and either a kernel that lets users make "
        f"namespaces or root with CAP_SYS_ADMIN; it runs as user {os.geteuid()}.\n{said}"
    )
