"""A real Apache Pulsar for the tests and for trying things out: fetched with Maven, started on loopback.

`python -m tests.pulsar_rig start` starts one and keeps it until Ctrl-C; `run command …` keeps it while the command
runs, with the settings in its environment; `fetch` only fetches the distribution.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import httpx

VERSION = "4.0.8"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "magnetar"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
ARTIFACT = f"org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin"
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven", "openssl": "openssl"}
START_SECONDS_MAX = 600
STARTS_MAX = 3
LOCK_LOST = b"Lock on resource /ledgers/available/"
LOCKS_LOST_MAX = 20
"""Where a standalone 4.0.8 takes ten seconds until its bookie registers a second time, the bookie can lose its lock to
itself, and then does so a hundred times a second until it ends: each call of the admin API takes seconds."""
PORTS = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range)."""
UNPACKING = "unpacking-"
IN_USE = "in-use"
PR_SET_PDEATHSIG = 1


class RigError(Exception):
    """There is no broker to be had here, and why."""


def distribution() -> Path:
    """The unpacked distribution, fetched and unpacked once for all checkouts. Raises RigError if it cannot be had."""
    home = CACHE / f"apache-pulsar-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        require("java", *(() if home.exists() else ("mvn",)))
        if not home.exists():
            for left in CACHE.glob(f"{UNPACKING}*"):  # whoever unpacked there is gone: the lock is ours
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=UNPACKING) as making:
                command = ["mvn", "-q", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={making}"]
                if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
                    raise RigError(f"Maven could not fetch {ARTIFACT}: see above.")
                (archive,) = Path(making).glob("*.tar.gz")
                with tarfile.open(archive) as tar:
                    tar.extractall(making, filter="data")
                (Path(making) / home.name).rename(home)
    return home


def require(*programs: str) -> None:
    missing = [PACKAGES[program] for program in programs if shutil.which(program) is None]
    if missing:
        raise RigError(
            f"A real broker needs {' and '.join(programs)}, and not all are here. "
            f"On Debian or Ubuntu: apt-get install {' '.join(missing)}"
        )


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder for one broker, removed at the end; those of processes that were killed are removed on the way."""
    folders = CACHE / "data"
    folders.mkdir(parents=True, exist_ok=True)
    for left in folders.iterdir():
        _remove_unless_in_use(left)
    folder = Path(tempfile.mkdtemp(dir=folders))
    with (folder / IN_USE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Startable(Protocol):
    """A broker, or several, with data in a folder."""

    def start(self) -> None:
        """Start, and wait until it answers."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


S = TypeVar("S", bound=Startable)


@contextlib.contextmanager
def started(broker: S) -> Iterator[S]:
    """It runs for as long as the block does."""
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / IN_USE).open("r+") as lock:  # not there yet: it is being made
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on at the moment, and that no outgoing connection is given.

    A broker that is killed wants its ports again: of those that the system gives away, another test has one by then.
    """
    with contextlib.ExitStack() as stack:
        free: list[int] = []
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if len(free) == count:
                break
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                free.append(port)
        return free


class Existing:
    """A cluster that somebody else runs: nothing can be done to it."""

    def __init__(self, service_url: str, admin_url: str) -> None:
        self.service_url = service_url
        self.admin_url = admin_url

    def environment(self, tenant: str) -> dict[str, str]:
        """The settings that lead to a tenant of it."""
        return {
            "MAGNETAR_BROKER": self.service_url,
            "MAGNETAR_BROKER_ADMIN": self.admin_url,
            "MAGNETAR_TENANT": tenant,
        }

    def new_tenant(self) -> str:
        """Make a tenant, which stays: no worker makes one."""
        tenant, admin = f"t{secrets.token_hex(6)}", f"{self.admin_url}/admin/v2"
        clusters = httpx.get(f"{admin}/clusters", timeout=60).raise_for_status().json()
        body = {"allowedClusters": clusters, "adminRoles": []}
        httpx.put(f"{admin}/tenants/{tenant}", json=body, timeout=60).raise_for_status()
        return tenant


class Standalone(Existing):
    """One Pulsar in one process, with its own ports and data, which ends when this process does."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        address: str = "127.0.0.1",
        interface: str = "lo",
    ) -> None:
        """`settings` go into standalone.conf. It listens on the address, which is one of the interface's."""
        self._folder = folder
        self._address, self._interface = address, interface
        self._settings = settings or {}
        self._home = distribution()
        self._port, self._web, self._bookie = free_ports(3)
        super().__init__(f"pulsar://{address}:{self._port}", f"http://{address}:{self._web}")
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

    @property
    def libraries(self) -> Path:
        """The distribution's jars, among them Pulsar's Java client."""
        return self._home / "lib"

    def _configure(self) -> None:
        conf = shutil.copytree(self._home / "conf", self._folder / "conf", dirs_exist_ok=True)
        settings = {
            "brokerServicePort": str(self._port),
            "webServicePort": str(self._web),
            "bindAddress": self._address,
            "advertisedAddress": self._address,
            "listeningInterface": self._interface,  # without it, the bookie listens on all interfaces
            "allowLoopback": "true",
            "allowEphemeralPorts": "true",  # without it, the bookie takes any port instead of the one that it is told
            # On a busy machine the only bookie answers late, and the broker would do without it for half an hour.
            "bookkeeperClientHealthCheckEnabled": "false",
            **self._settings,
        }
        lines = (conf / "standalone.conf").read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0] not in settings]
        added = [f"{key}={value}" for key, value in settings.items()]
        (conf / "standalone.conf").write_text("\n".join([*kept, *added]) + "\n")

    def start(self) -> None:
        """Start it, and wait until it is ready. After a kill it comes back with the same ports and data."""
        for _ in range(STARTS_MAX):
            log = self._folder / "pulsar.log"
            before = log.stat().st_size if log.exists() else 0
            self._start()
            with log.open("rb") as said:
                said.seek(before)
                if said.read().count(LOCK_LOST) < LOCKS_LOST_MAX:
                    return
            self.kill()
        raise RigError(f"Pulsar took {STARTS_MAX} times its own bookie's registration away, again and again.")

    def _start(self) -> None:
        environment = {
            **os.environ,
            "PULSAR_MEM": "-Xms512m -Xmx1g -XX:MaxDirectMemorySize=1g",
            "PULSAR_STANDALONE_CONF": str(self._folder / "conf" / "standalone.conf"),
            "PULSAR_LOG_DIR": str(self._folder / "logs"),
            "PULSAR_GC_LOG": "",
        }
        data = self._folder / "data"
        command = [
            str(self._home / "bin" / "pulsar"), "standalone", "-nfw", "-nss", "-a", self._address,
            "--metadata-dir", str(data / "metadata"), "--bookkeeper-dir", str(data / "bookkeeper"),
            "--bookkeeper-port", str(self._bookie),
        ]  # fmt: skip
        parent = os.getpid()

        def end_with_parent() -> None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it was gone before the signal was asked for
                os._exit(1)

        with (self._folder / "pulsar.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, and what the script starts is in one group
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it takes no lock
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = (self._folder / "pulsar.log").read_text(errors="replace")[-3000:]
                raise RigError(f"Pulsar did not start:\n{tail}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            # Ready is not yet complete: cluster and namespace are made a moment later.
            paths = ("brokers/ready", "namespaces/public/default")
            return all(self._get(f"{self.admin_url}/admin/v2/{path}").is_success for path in paths)
        except httpx.HTTPError:
            return False

    def _get(self, url: str) -> httpx.Response:
        return httpx.get(url, timeout=5)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped in its tracks, with its connections open, and going on afterwards."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def revive(self) -> None:
        """Start it if it has ended: a test that could not start it again takes no other test with it."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """Kill it without warning."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """End it. Its data is not needed any more."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


def main() -> int:
    """Start one, print its URLs as settings or run a command with them, and end it."""
    parser = argparse.ArgumentParser(prog="python -m tests.pulsar_rig", description=__doc__)
    parser.add_argument("action", choices=["start", "run", "fetch"])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep its data there")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.action == "fetch":
        print(distribution())
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        kept_folder(given.keep) if given.keep else data_folder() as folder,
        started(Standalone(folder)) as broker,
    ):
        settings = {"MAGNETAR_BROKER": broker.service_url, "MAGNETAR_BROKER_ADMIN": broker.admin_url}
        if given.action == "run":
            return run(given.command, settings)
        print("export", *(f"{name}={value}" for name, value in settings.items()), flush=True)
        signal.pause()
    return 0


@contextlib.contextmanager
def kept_folder(folder: Path) -> Iterator[Path]:
    """A folder for one broker that stays."""
    folder.mkdir(parents=True, exist_ok=True)
    yield folder.absolute()


def run(command: Sequence[str], settings: Mapping[str, str]) -> int:
    """Run a command to its end; on Ctrl-C, which reaches it too, wait for it."""
    process = subprocess.Popen(command, env={**os.environ, **settings})
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RigError as error:
        sys.exit(str(error))
