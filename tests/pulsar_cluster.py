"""A small Apache Pulsar cluster on loopback: ZooKeeper, three bookies and two brokers, each a process of its own.

It takes 4.2 GB of memory, and half a minute to start on an idle machine; `make test-cluster` runs what needs it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.pulsar_rig import PR_SET_PDEATHSIG, Existing, RigError, distribution, free_ports

BOOKIES, BROKERS = 3, 2
START_SECONDS_MAX = 600
MEMORY = {"zookeeper": "256m", "bookie": "384m", "broker": "512m"}


class Server:
    """One process of the cluster, with a configuration of its own. It ends when this process does."""

    def __init__(
        self, folder: Path, name: str, command: str, conf: tuple[str, str], settings: Mapping[str, object]
    ) -> None:
        """`conf` is the environment variable that names the configuration, and the file it is made from."""
        self.name = name
        self._home = distribution()
        self._folder = folder / name
        self._folder.mkdir()
        self._command = command
        variable, original = conf
        text = (self._home / "conf" / original).read_text().splitlines()
        kept = [line for line in text if line.partition("=")[0] not in settings]
        file = self._folder / original
        file.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in settings.items())]) + "\n")
        kind = name.partition("-")[0]
        memory = f"-Xms{MEMORY[kind]} -Xmx{MEMORY[kind]} -XX:MaxDirectMemorySize={MEMORY[kind]}"
        self._environment = {
            **os.environ,
            variable: str(file),
            "PULSAR_MEM": memory,
            "BOOKIE_MEM": memory,
            "PULSAR_GC": "-XX:+UseSerialGC",
            "BOOKIE_GC": "-XX:+UseSerialGC",
            "PULSAR_LOG_DIR": str(self._folder / "logs"),
            "PULSAR_GC_LOG": "",
            "BOOKIE_GC_LOG": "",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, also after a kill: on the same ports and data."""
        parent = os.getpid()

        def end_with_parent() -> None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [str(self._home / "bin" / "pulsar"), self._command],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it takes no lock
            )

    def kill(self) -> None:
        """Kill it without warning."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def check(self) -> None:
        """Raise RigError if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            tail = (self._folder / "output").read_text(errors="replace")[-3000:]
            raise RigError(f"{self.name} did not start:\n{tail}")

    def run_once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the distribution with this server's configuration."""
        command = [str(self._home / "bin" / "pulsar"), *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)


class Cluster(Existing):
    """All of them. Admin calls go to the first broker, which stays."""

    def __init__(self, folder: Path) -> None:
        keeper, metrics, *ports = free_ports(2 + 2 * BOOKIES + 2 * BROKERS)
        bookie_ports, broker_ports = ports[: 2 * BOOKIES], ports[2 * BOOKIES :]
        brokers = [(broker_ports[2 * n], broker_ports[2 * n + 1]) for n in range(BROKERS)]
        addresses = ",".join(f"127.0.0.1:{port}" for port, _ in brokers)
        super().__init__(f"pulsar://{addresses}", f"http://127.0.0.1:{brokers[0][1]}")
        self._store = f"127.0.0.1:{keeper}"
        self._zookeeper = Server(
            folder,
            "zookeeper",
            "zookeeper",
            ("PULSAR_ZK_CONF", "zookeeper.conf"),
            {
                "clientPort": keeper,
                "clientPortAddress": "127.0.0.1",
                "dataDir": folder / "zookeeper" / "data",
                "admin.enableServer": "false",
                "metricsProvider.httpPort": metrics,
            },
        )
        self.bookies = [self._bookie(folder, n, bookie_ports[2 * n], bookie_ports[2 * n + 1]) for n in range(BOOKIES)]
        self.brokers = [self._broker(folder, n, *brokers[n]) for n in range(BROKERS)]
        self._webs = [f"http://127.0.0.1:{web}" for _, web in brokers]

    def _bookie(self, folder: Path, number: int, port: int, stats: int) -> Server:
        name = f"bookie-{number}"
        settings = {
            "bookiePort": port,
            "journalDirectory": folder / name / "journal",
            "ledgerDirectories": folder / name / "ledgers",
            "metadataServiceUri": f"metadata-store:zk:{self._store}",
            "prometheusStatsHttpPort": stats,
            "listeningInterface": "lo",
            "allowLoopback": "true",
            "advertisedAddress": "127.0.0.1",
            "diskUsageThreshold": "0.99",
            "dbStorage_writeCacheMaxSizeMb": "32",
            "dbStorage_readAheadCacheMaxSizeMb": "32",
        }
        return Server(folder, name, "bookie", ("PULSAR_BOOKKEEPER_CONF", "bookkeeper.conf"), settings)

    def _broker(self, folder: Path, number: int, port: int, web: int) -> Server:
        settings = {
            "metadataStoreUrl": f"zk:{self._store}",
            "configurationMetadataStoreUrl": f"zk:{self._store}",
            "clusterName": "small",
            "brokerServicePort": port,
            "webServicePort": web,
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "metadataStoreSessionTimeoutMillis": "10000",
            "managedLedgerDefaultEnsembleSize": BOOKIES,
            "managedLedgerDefaultWriteQuorum": BOOKIES,
            "managedLedgerDefaultAckQuorum": BOOKIES - 1,
            "keepAliveIntervalSeconds": "5",
            # See tests/pulsar_rig.py: of three bookies none can be spared.
            "bookkeeperClientHealthCheckEnabled": "false",
            # Without it, a ledger of which one bookie is gone is closed, and a new one needs all three: nothing could
            # be written until that bookie is back.
            "bookkeeper_delayEnsembleChange": "true",
        }
        return Server(folder, f"broker-{number}", "broker", ("PULSAR_BROKER_CONF", "broker.conf"), settings)

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        deadline = time.monotonic() + START_SECONDS_MAX
        self._zookeeper.start()
        first = self.brokers[0]
        made = ("initialize-cluster-metadata", "--cluster", "small", "--web-service-url", self._webs[0])
        stores = ("--metadata-store", f"zk:{self._store}", "--configuration-metadata-store", f"zk:{self._store}")
        while (done := first.run_once(*made, *stores, "--broker-service-url", self.service_url)).returncode != 0:
            self._zookeeper.check()
            if time.monotonic() > deadline:
                raise RigError(f"The cluster's metadata could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        for server in (*self.bookies, *self.brokers):
            server.start()
        while not all(self._is_ready(web) for web in self._webs):
            for server in (*self.bookies, *self.brokers):
                server.check()
            if time.monotonic() > deadline:
                raise RigError("The cluster was not ready in time.")
            time.sleep(0.5)

    def _is_ready(self, web: str) -> bool:
        try:
            ready = httpx.get(f"{web}/admin/v2/brokers/ready", timeout=10).is_success
            bookies = httpx.get(f"{web}/admin/v2/bookies/all", timeout=10).json()["bookies"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return ready and len(bookies) == BOOKIES

    def stop(self) -> None:
        """End everything. The data is not needed any more."""
        for server in (*self.brokers, *self.bookies, self._zookeeper):
            server.kill()
