"""What other projects publish about the objects that the chart makes for them: files out of their Go modules."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.pulsar_rig import CACHE, RigError


@dataclass(frozen=True)
class Published:
    """Files of a module, fetched once for all checkouts."""

    name: str
    module: str
    version: str
    sum: str
    """That of the module that was looked at."""
    definitions_in: str
    """The folder of the files that define a kind each."""
    kinds: tuple[str, ...]
    """Those files."""
    beside: tuple[str, ...] = ()
    """Other files, with their folders."""

    def definitions(self) -> list[Any]:
        """The CustomResourceDefinitions of what the chart makes. Raises RigError if they cannot be had."""
        return [yaml.safe_load(self.text(name)) for name in self.kinds]

    def text(self, name: str) -> str:
        """What stands in a file, which is named without its folder. Raises RigError if it cannot be had."""
        return (self._kept() / name).read_text(encoding="utf-8")

    def is_had(self) -> bool:
        """Whether its files are here, or have been fetched now."""
        if not self._home.exists() and shutil.which("go") is None:
            return False
        try:
            self._kept()
        except RigError:  # Go finds no way to them: who asks for their text is told why
            return False
        return True

    @property
    def _home(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"

    def _kept(self) -> Path:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._home.exists():
                module = self._fetched()
                with tempfile.TemporaryDirectory(dir=CACHE) as making:
                    copies = Path(making) / self.name
                    copies.mkdir()
                    for file in (*(f"{self.definitions_in}/{name}" for name in self.kinds), *self.beside):
                        shutil.copy(module / file, copies)
                    copies.rename(self._home)
        return self._home

    def _fetched(self) -> Path:
        """Where Go has put the module."""
        if shutil.which("go") is None:
            raise RigError(f"The definitions of {self.name} are fetched with Go, and there is none here.")
        module = f"{self.module}@{self.version}"
        command = ["go", "mod", "download", "-json", module]
        ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        found = json.loads(ran.stdout or "{}")
        if ran.returncode != 0 or found.get("Sum") != self.sum:
            raise RigError(f"{module} could not be fetched: {found.get('Error') or found.get('Sum') or ran.stderr}")
        return Path(found["Dir"])


KEDA: Final = Published(
    name="keda",
    module="github.com/kedacore/keda/v2",
    version="v2.21.0",
    sum="h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
    definitions_in="config/crd/bases",
    kinds=("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"),
    beside=("schema/generated/scalers-schema.json",),
)

PROMETHEUS_OPERATOR: Final = Published(
    name="prometheus-operator",
    module="github.com/prometheus-operator/prometheus-operator",
    version="v0.85.0",
    sum="h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
    definitions_in="example/prometheus-operator-crd",
    kinds=("monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"),
)
