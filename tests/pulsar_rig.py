"""A real Apache Pulsar for the tests: fetched with Maven, started on loopback, reused over the run.

`python -m tests.pulsar_rig` starts one and keeps it until Ctrl-C. An existing one is used instead if
MAGNETAR_TEST_PULSAR_URL and MAGNETAR_TEST_PULSAR_ADMIN name it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import httpx

VERSION = "4.0.8"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "magnetar"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
ARTIFACT = f"org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin"
START_SECONDS_MAX = 180
PR_SET_PDEATHSIG = 1


def distribution() -> Path:
    """The unpacked distribution, fetched and unpacked once for all checkouts."""
    home = CACHE / f"apache-pulsar-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as making:
                subprocess.run(
                    ["mvn", "-q", PLUGIN, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={making}"], check=True
                )
                (archive,) = Path(making).glob("*.tar.gz")
                with tarfile.open(archive) as tar:
                    tar.extractall(making, filter="data")
                (Path(making) / home.name).rename(home)
    return home


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Standalone:
    """One Pulsar in one process, with its own ports and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = distribution()
        self._port, self._web = free_port(), free_port()
        self.service_url = f"pulsar://127.0.0.1:{self._port}"
        self.admin_url = f"http://127.0.0.1:{self._web}"
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        conf = shutil.copytree(self._home / "conf", self._folder / "conf", dirs_exist_ok=True)
        settings = {
            "brokerServicePort": str(self._port),
            "webServicePort": str(self._web),
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "listeningInterface": "lo",
            "bookieId": "",
            "allowLoopback": "true",
        }
        lines = (conf / "standalone.conf").read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0] not in settings]
        added = [f"{key}={value}" for key, value in settings.items() if value]
        (conf / "standalone.conf").write_text("\n".join([*kept, *added]) + "\n")

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        environment = {
            **os.environ,
            "PULSAR_MEM": "-Xms512m -Xmx1g -XX:MaxDirectMemorySize=1g",
            "PULSAR_STANDALONE_CONF": str(self._folder / "conf" / "standalone.conf"),
            "PULSAR_LOG_DIR": str(self._folder / "logs"),
            "PULSAR_GC_LOG": "",
        }
        data = self._folder / "data"
        command = [
            str(self._home / "bin" / "pulsar"), "standalone", "-nfw", "-nss", "-a", "127.0.0.1",
            "--metadata-dir", str(data / "metadata"), "--bookkeeper-dir", str(data / "bookkeeper"),
        ]  # fmt: skip
        with (self._folder / "pulsar.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads are started before
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "pulsar.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"Pulsar did not start:\n{tail}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            # Ready is not yet complete: cluster and namespace are made a moment later.
            paths = ("brokers/ready", "namespaces/public/default")
            return all(httpx.get(f"{self.admin_url}/admin/v2/{path}", timeout=5).is_success for path in paths)
        except httpx.HTTPError:
            return False

    def freeze(self) -> None:
        """Stop it in its tracks; connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it without warning."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """End it. Its data is not needed any more."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)  # bin/pulsar replaces itself by the Java process


def main() -> None:
    """Start one in a temporary folder, print its URLs, and keep it until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="magnetar-pulsar-") as folder:
        broker = Standalone(Path(folder))
        broker.start()
        print(f"export MAGNETAR_BROKER={broker.service_url} MAGNETAR_BROKER_ADMIN={broker.admin_url}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            broker.stop()


if __name__ == "__main__":
    main()
