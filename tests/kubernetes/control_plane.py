"""A real Kubernetes control plane on loopback, without containers: etcd, API server, controllers and scheduler.

They are one program, kubebox, built from the modules that Kubernetes publishes, and kept for all checkouts under a hash
of its sources. `python -m tests.kubernetes.control_plane` builds it: some seven hundred seconds of processor time. With
`--where` it only says where it is, or would be.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from tests.pulsar_rig import CACHE, RigError, free_ports

KUBEBOX: Final = "v1.37.2"
START_SECONDS_MAX: Final = 180
_STAMP: Final = "k8s.io/component-base/version"


def program(name: str = "kubebox", version: str = KUBEBOX) -> Path:
    """Where a program is, or would be."""
    sources = b"".join((_sources(name) / file).read_bytes() for file in ("go.mod", "go.sum", "main.go"))
    return CACHE / f"{name}-{hashlib.sha256(sources + _flags(version).encode()).hexdigest()[:16]}" / name


def build(name: str = "kubebox", version: str = KUBEBOX) -> Path:
    """Build a program, if it is not there. Raises RigError if it cannot be built."""
    target = program(name, version)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            if shutil.which("go") is None:
                raise RigError(f"{name} is built with Go, and there is none here.")
            with tempfile.TemporaryDirectory(dir=CACHE) as making:  # the compiler's cache grows by 4 GB: not to stay
                environment = {**os.environ, "GOCACHE": f"{making}/gocache", "GOFLAGS": "-mod=readonly"}
                sources = shutil.copytree(_sources(name), f"{making}/sources")
                command = ["go", "build", "-trimpath", "-ldflags", _flags(version), "-o", f"{making}/out/{name}", "."]
                if subprocess.run(command, cwd=sources, env=environment, check=False).returncode != 0:
                    raise RigError(f"{name} could not be built: see above.")
                (Path(making) / "out").rename(target.parent)
    return target


def _sources(name: str) -> Path:
    return Path(__file__).with_name(name)


def _flags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".")
    return f"-s -w -X {_STAMP}.gitVersion={version} -X {_STAMP}.gitMajor={major} -X {_STAMP}.gitMinor={minor}"


class Authority:
    """Certificates for one control plane, signed by an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
        self._openssl("genrsa -out accounts.key 2048")

    def path(self, name: str) -> str:
        """A file of it."""
        return str(self._folder / name)

    def sign(self, name: str, subject: str, extension: str) -> None:
        """Make a key, and a certificate for it."""
        self._openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}")
        (self._folder / f"{name}.ext").write_text(extension)
        signed = f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt"
        self._openssl(f"{signed} -extfile {name}.ext")

    def kubeconfig(self, name: str, url: str) -> str:
        """What a client reads who is to be `name`."""

        def read(file: str) -> str:
            return b64encode((self._folder / file).read_bytes()).decode()

        user = {"client-certificate-data": read(f"{name}.crt"), "client-key-data": read(f"{name}.key")}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": read("ca.crt")}}],
                "users": [{"name": "c", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            }
        )

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self._folder, check=True, capture_output=True)


class Api:
    """The API server, as an administrator sees it."""

    def __init__(self, url: str, authority: Authority) -> None:
        context = ssl.create_default_context(cafile=authority.path("ca.crt"))
        context.load_cert_chain(authority.path("admin.crt"), authority.path("admin.key"))
        self.url, self.authority = url, authority
        self.kubeconfig = authority.kubeconfig("admin", url)
        self._client = httpx.Client(base_url=url, verify=context, timeout=60)

    def get(self, path: str, **query: str) -> Any:
        """An object, or a list of them; None if there is none."""
        found = self._client.get(path, params=query)
        if found.status_code == 404:
            return None
        found.raise_for_status()
        return found.json() if "json" in found.headers["content-type"] else found.text

    def items(self, path: str, **query: str) -> list[Any]:
        """The objects of a list."""
        return list(self.get(path, **query)["items"])

    def post(self, path: str, body: Any) -> httpx.Response:
        """Make an object."""
        return self._client.post(path, json=body)

    def patch(self, path: str, body: Any) -> httpx.Response:
        """Change an object."""
        return self._client.patch(path, json=body, headers={"content-type": "application/merge-patch+json"})

    def delete(self, path: str, grace_seconds: int) -> httpx.Response:
        """Remove an object."""
        return self._client.delete(path, params={"gracePeriodSeconds": str(grace_seconds)})

    def close(self) -> None:
        """Let go."""
        self._client.close()


class ControlPlane:
    """The four parts, as processes that end when this one does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority(folder / "pki")
        self._etcd, self._peer, self._port, self._controllers, self._scheduler = free_ports(5)
        self.url = f"https://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> Api:
        """Start them, and wait until accounts are made, which is when pods can be."""
        self._make_certificates()
        self._start("etcd", self._etcd_flags())
        self._start("kube-apiserver", self._apiserver_flags())
        api = Api(self.url, self._authority)
        self._wait(lambda: api.get("/readyz") == "ok")
        for name, port, more in (
            ("kube-controller-manager", self._controllers, self._controller_flags()),
            ("kube-scheduler", self._scheduler, ()),
        ):
            config = self._folder / f"{name}.json"
            config.write_text(self._authority.kubeconfig(name, self.url))
            same = [
                f"--{flag}={config}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
            ]
            self._start(
                name, [*same, *more, "--bind-address=127.0.0.1", f"--secure-port={port}", "--leader-elect=false"]
            )
        self._wait(lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None)
        return api

    def _make_certificates(self) -> None:
        client, sign = "extendedKeyUsage=clientAuth", self._authority.sign
        names = "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost"
        sign("server", "/CN=kube-apiserver", f"{names}\nextendedKeyUsage=serverAuth,clientAuth")
        sign("admin", "/O=system:masters/CN=admin", client)
        for name in ("kube-controller-manager", "kube-scheduler"):
            sign(name, f"/CN=system:{name}", client)

    def _etcd_flags(self) -> Sequence[str]:
        clients, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        return [
            *("--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients, "--listen-peer-urls", peers),
            *("--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
        ]

    def _apiserver_flags(self) -> Sequence[str]:
        path = self._authority.path
        return [
            *(
                f"--etcd-servers=http://127.0.0.1:{self._etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
            ),
            *("--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--profiling=false"),
            *("--service-cluster-ip-range=10.96.0.0/16", f"--cert-dir={self._folder / 'certs'}"),
            *(f"--client-ca-file={path('ca.crt')}", f"--tls-cert-file={path('server.crt')}"),
            f"--tls-private-key-file={path('server.key')}",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            *("--service-account-issuer=https://kubernetes.default.svc",),
            *(f"--service-account-{use}-file={path('accounts.key')}" for use in ("key", "signing-key")),
        ]

    def _controller_flags(self) -> Sequence[str]:
        path = self._authority.path
        return [
            *(f"--service-account-private-key-file={path('accounts.key')}", f"--root-ca-file={path('ca.crt')}"),
            *("--use-service-account-credentials=true", f"--cert-dir={self._folder / 'certs'}"),
            "--controllers=*,-node-lifecycle-controller",  # the node of the tests does not renew its lease
        ]

    def _start(self, name: str, flags: Sequence[str]) -> None:
        command = ["setpriv", "--pdeathsig", "KILL", str(program()), name, *flags]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def _wait(self, holds: Any) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            with contextlib.suppress(httpx.HTTPError):
                if holds():
                    return
            time.sleep(0.1)
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in self._folder.glob("*.log"))
        raise RigError(f"The control plane did not start:\n{logs}")

    def stop(self) -> None:
        """End them, the last first."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Api]:
    """A control plane for as long as the block runs."""
    plane = ControlPlane(folder)
    try:
        yield plane.start()
    finally:
        plane.stop()


if __name__ == "__main__":
    print(program() if "--where" in sys.argv else build())
