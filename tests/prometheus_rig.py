"""A real Prometheus for the tests: the machine's own, or Debian's package, unpacked beside other things that are
fetched once, and not installed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.pulsar_rig import CACHE, RigError, free_ports

START_SECONDS_MAX = 60


def program(name: str) -> Path:
    """`prometheus` or `promtool`. Raises RigError if it cannot be had."""
    if (found := shutil.which(name)) is not None:
        return Path(found)
    home = CACHE / "prometheus"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as making:
                _unpack(Path(making))
                (Path(making) / "prometheus").rename(home)
    return home / "usr" / "bin" / name


def _unpack(folder: Path) -> None:
    fetch = ["apt-get", "download", "--quiet", "prometheus"]
    try:
        if subprocess.run(fetch, cwd=folder, check=False, capture_output=True).returncode != 0:
            subprocess.run(["apt-get", "update", "--quiet"], check=True, capture_output=True)
            subprocess.run(fetch, cwd=folder, check=True, capture_output=True)
        (package,) = folder.glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder / "prometheus"], check=True)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise RigError(f"Prometheus is not here, and its Debian package cannot be had: {error}.") from error


class Prometheus:
    """One that runs, and what it knows."""

    def __init__(self, url: str) -> None:
        self.url = url

    def alerts(self) -> set[str]:
        """The names of the alerts that fire."""
        found: Any = httpx.get(f"{self.url}/api/v1/alerts").json()
        return {alert["labels"]["alertname"] for alert in found["data"]["alerts"] if alert["state"] == "firing"}

    def query(self, expression: str) -> list[Any]:
        """What an expression gives now."""
        found: Any = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert found["status"] == "success", found
        return list(found["data"]["result"])


@contextlib.contextmanager
def running(folder: Path, rules: Path, targets: list[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these and evaluates these rules, four times a second."""
    (port,) = free_ports(1)
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "magnetar", "static_configs": [{"targets": targets}]}],
            }
        )
    )
    command = [
        str(program("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        _wait(process, f"http://127.0.0.1:{port}", folder / "prometheus.log")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise RigError(f"Prometheus did not start:\n{log.read_text()}")
