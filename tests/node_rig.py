"""A real node for the control plane of the tests, without Docker: kubelet and containerd, and a bridge for the pods.

`python -m tests.node_rig` builds the kubelet, as that of the control plane is built.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.image_rig import done, run
from tests.kubernetes.control_plane import Api, build, program
from tests.pulsar_rig import RigError, free_ports

KUBELET: Final = "v1.34.4"
"""The newest that takes control groups of version 1, and containerd 1.6."""
PROGRAMS: Final = ("containerd", "runc", "catatonit", "ip")
PLUGINS: Final = Path("/usr/lib/cni/bridge")
PACKAGES: Final = "containerd runc containernetworking-plugins catatonit iproute2"
BRIDGE: Final = "magnetar0"
GATEWAY: Final = "10.244.77.1"
"""The address of this machine as the pods see it."""
PAUSE: Final = "localhost/magnetar-pause:1"
START_SECONDS_MAX: Final = 180
_SYSCTLS: Final = ("vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops", "vm.panic_on_oom")
"""What a kubelet changes on its machine."""


def check_programs() -> None:
    """Raise RigError if the machine lacks something: before an image is built for minutes."""
    if any(shutil.which(name) is None for name in PROGRAMS) or not PLUGINS.exists():
        raise RigError(f"A node needs: apt-get install {PACKAGES}")


class RealNode:
    """The processes of a node, which end when this one does."""

    def __init__(self, folder: Path, api: Api) -> None:
        self._folder, self._api, self._authority = folder, api, api.authority
        self._socket = folder / "containerd.sock"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._namespaces = _network_namespaces()

    def start(self) -> None:
        """Start it, and wait until the API server calls it ready."""
        self._authority.sign(
            "node",
            "/O=system:nodes/CN=system:node:localhost",
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=clientAuth,serverAuth",
        )
        self._start("containerd", ["containerd", "--config", self._containerd_config()])
        self.wait(self._socket.exists, "containerd is there")
        self._load_pause()
        config = self._kubelet_config()
        kubeconfig = self._folder / "kubeconfig.json"
        kubeconfig.write_text(self._authority.kubeconfig("node", self._api.url))
        flags = [f"--config={config}", f"--kubeconfig={kubeconfig}", "--hostname-override=localhost"]
        folders = [f"--root-dir={self._folder / 'kubelet'}", f"--cert-dir={self._folder / 'kubelet-certs'}"]
        self._start("kubelet", [str(program("kubelet", KUBELET)), *flags, *folders])
        self.wait(self._is_ready, "the node is ready")
        # The controller that would take the taint away is not run: the other tests' node does not renew its lease.
        self._api.patch("/api/v1/nodes/localhost", {"spec": {"taints": None}}).raise_for_status()

    def load(self, image: str) -> None:
        """Put an image out of the tests' store into the node's."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            archive = f"{folder}/image.tar"
            done(run("podman", "save", "--format", "docker-archive", "--output", archive, image))
            self.ctr("images", "import", archive)

    def ctr(self, *arguments: str) -> str:
        """What containerd's client says."""
        command = self._ctr(*arguments)
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if ran.returncode != 0:
            raise RigError(f"{' '.join(command)} failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
        return ran.stdout

    def run_in(self, pod: Any, *command: str) -> str:
        """What a command prints in a pod's container, as `kubectl exec` would."""
        return self.ctr(*_within(pod, *command))

    def command_in(self, pod: Any, *command: str) -> list[str]:
        """The command line that does so, for who does not want to wait."""
        return self._ctr(*_within(pod, *command))

    def process_of(self, pod: Any) -> int:
        """The first process of a pod's container, as this machine numbers it."""
        found = [line.split() for line in self.ctr("tasks", "list").splitlines()]
        return next(int(process) for container, process, *_ in found if container == _container(pod))

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", *arguments]

    def _is_ready(self) -> bool:
        node = self._api.get("/api/v1/nodes/localhost")
        conditions = node["status"].get("conditions", []) if node else []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _containerd_config(self) -> str:
        networks = self._folder / "cni"
        networks.mkdir()
        ipam = {
            "type": "host-local",
            "dataDir": str(self._folder / "ipam"),
            "ranges": [[{"subnet": "10.244.77.0/24", "gateway": GATEWAY}]],
        }
        bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "ipam": ipam}
        network = {"cniVersion": "0.4.0", "name": "magnetar", "plugins": [bridge]}
        (networks / "10-magnetar.conflist").write_text(json.dumps(network))
        config = self._folder / "containerd.toml"
        config.write_text(f"""\
version = 2
root = "{self._folder}/containerd"
state = "{self._folder}/containerd-state"
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
""")
        return str(config)

    def _kubelet_config(self) -> Path:
        (port,) = free_ports(1)
        path = self._authority.path
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": port,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": path("ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": path("node.crt"),
            "tlsPrivateKeyFile": path("node.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "volumePluginDir": str(self._folder / "plugins"),
            "podLogsDir": str(self._folder / "logs"),
            "oomScoreAdj": 0,
            "nodeStatusUpdateFrequency": "5s",
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
        }
        file = self._folder / "kubelet.json"
        file.write_text(json.dumps(config))
        return file

    def _load_pause(self) -> None:
        """The program that keeps a pod's namespaces: nothing but it is in its image."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(str(shutil.which("catatonit")), f"{folder}/pause")
            subprocess.run(["tar", "-C", folder, "-cf", f"{folder}/root.tar", "pause"], check=True)
            done(run("podman", "import", "--change", 'ENTRYPOINT ["/pause","-P"]', f"{folder}/root.tar", PAUSE))
        self.load(PAUSE)

    def _start(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            prefix = ["setpriv", "--pdeathsig", "KILL"]
            self._processes.append(subprocess.Popen([*prefix, *command], stdout=log, stderr=subprocess.STDOUT))

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it. Raises RigError with the ends of the logs if it does not come."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not holds():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self._folder.glob("*.log"))
                raise RigError(f"Not so: {what}.\n{logs}")
            time.sleep(0.2)  # the runtime and the kubelet are asked: neither has a call that waits

    def stop(self) -> None:
        """End the containers, then the processes, and take away what they leave on the machine."""
        containerd, kubelet = self._processes[:1], self._processes[1:]
        _end(kubelet)  # first: it ends and starts containers, too
        with contextlib.suppress(RigError):
            for task in self.ctr("tasks", "list", "--quiet").split():
                with contextlib.suppress(RigError):  # one that has just ended
                    self.ctr("tasks", "delete", "--force", task)
        _end(containerd)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(str(self._folder))]):
            subprocess.run(["umount", "--lazy", mount], check=False)
        for name in _network_namespaces() - self._namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        for group in sorted(Path("/sys/fs/cgroup").glob("*/k8s.io/**"), reverse=True):
            with contextlib.suppress(OSError):  # somebody else's, who is in there
                group.rmdir()
        shutil.rmtree(self._folder / "containerd", ignore_errors=True)  # the images, unpacked


def _container(pod: Any) -> str:
    return str(pod["status"]["containerStatuses"][0]["containerID"]).removeprefix("containerd://")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _within(pod: Any, *command: str) -> list[str]:
    options = ["--user", "65532:65532", "--exec-id", f"e{time.monotonic_ns()}"]
    return ["tasks", "exec", *options, _container(pod), *command]


def _network_namespaces() -> set[str]:
    """Those that containerd has made for pods."""
    return {path.name for path in Path("/run/netns").glob("cni-*")}


@contextlib.contextmanager
def network() -> Iterator[None]:
    """The bridge, with the address under which pods find this machine; what a kubelet sets is set back."""
    before = {name: Path(f"/proc/sys/{name.replace('.', '/')}").read_text() for name in _SYSCTLS}
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)  # of a run that was killed
    for command in (
        f"link add {BRIDGE} type bridge",
        f"addr add {GATEWAY}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)
        for name, value in before.items():
            Path(f"/proc/sys/{name.replace('.', '/')}").write_text(value)


if __name__ == "__main__":
    print(build("kubelet", KUBELET))
