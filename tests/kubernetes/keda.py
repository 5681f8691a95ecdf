"""What KEDA itself says about its objects: definitions and parameters, out of the module that it publishes."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from tests.pulsar_rig import CACHE, RigError

MODULE: Final = "github.com/kedacore/keda/v2@v2.21.0"
SUM: Final = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="
_DEFINITIONS: Final = ("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml")
_SCALERS: Final = "scalers-schema.json"
_HOME: Final = CACHE / "keda-v2.21.0"


def definitions() -> list[Any]:
    """The CustomResourceDefinitions of what the chart makes for KEDA."""
    return [yaml.safe_load((_kept() / name).read_text()) for name in _DEFINITIONS]


def parameters(scaler: str) -> list[Any]:
    """What a trigger of that type may say, each with its name and where it may stand."""
    scalers = json.loads((_kept() / _SCALERS).read_text())["scalers"]
    return next(each["parameters"] for each in scalers if each["type"] == scaler)


def is_had() -> bool:
    """Whether its files are here, or can be fetched."""
    return _HOME.exists() or shutil.which("go") is not None


def _kept() -> Path:
    """The files that are needed, fetched once for all checkouts. Raises RigError if they cannot be had."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "keda.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _HOME.exists():
            module = _module()
            with tempfile.TemporaryDirectory(dir=CACHE) as making:
                files = [f"config/crd/bases/{name}" for name in _DEFINITIONS] + [f"schema/generated/{_SCALERS}"]
                (Path(making) / "keda").mkdir()
                for file in files:
                    shutil.copy(module / file, f"{making}/keda")
                (Path(making) / "keda").rename(_HOME)
    return _HOME


def _module() -> Path:
    """Where Go has put the module, whose sum is the one that was looked at."""
    if shutil.which("go") is None:
        raise RigError("KEDA's definitions are fetched with Go, and there is none here.")
    command = ["go", "mod", "download", "-json", MODULE]
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    found = json.loads(ran.stdout or "{}")
    if ran.returncode != 0 or found.get("Sum") != SUM:
        raise RigError(f"{MODULE} could not be fetched: {found.get('Error') or found.get('Sum') or ran.stderr}")
    return Path(found["Dir"])
