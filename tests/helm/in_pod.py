"""What a container of the chart finds: its environment and its mounted files, put into a folder of this machine."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.helm.conftest import Objects

MOUNTS = "/etc/magnetar/"


def settings_in_pod(
    objects: Objects, of: tuple[str, str], folder: Path, theirs: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The MAGNETAR_ settings of the first container of an object that makes pods, with all that is mounted for it below
    the folder. `theirs` are the Secrets and ConfigMaps that the values name, by name."""
    pod = objects[of]["spec"]["template"]["spec"]
    container = [*pod.get("initContainers", []), *pod["containers"]][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        if mount["mountPath"].startswith(MOUNTS):
            _mount(objects, volumes[mount["name"]], folder / mount["mountPath"].lstrip("/"), theirs)
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    found |= {each["name"]: each["value"] for each in container.get("env", [])}
    return {
        name: value.replace(MOUNTS, f"{folder}{MOUNTS}") if value.startswith(MOUNTS) else value
        for name, value in found.items()
        if name.startswith("MAGNETAR_")
    }


def _mount(objects: Objects, volume: Any, to: Path, theirs: Mapping[str, Mapping[str, str]]) -> None:
    kind, name = ("Secret", volume["secret"]["secretName"]) if "secret" in volume else ("ConfigMap", _named(volume))
    if (kind, name) in objects:
        encoded = objects[kind, name]["data"]
        data = {key: base64.b64decode(text).decode() for key, text in encoded.items()} if kind == "Secret" else encoded
    else:
        data = dict(theirs[name])
    items = volume.get("secret", {}).get("items") or [{"key": key, "path": key} for key in data]
    to.mkdir(parents=True, exist_ok=True)
    for item in items:
        (to / item["path"]).write_text(data[item["key"]])


def _named(volume: Any) -> str:
    return str(volume["configMap"]["name"])
