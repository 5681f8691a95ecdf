"""What every process of a pipeline says for Prometheus: its disk, and what was found of the log when it started."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from .preflight import Finding, Severity

_LABELS: Final = ("context",)

DISK_FREE: Final = Gauge("magnetar_disk_free_bytes", "What is free where the data folder is; 0 if it is gone.", _LABELS)
DISK_SIZE: Final = Gauge(
    "magnetar_disk_size_bytes", "How large the disk with the data folder is; 0 if it is gone.", _LABELS
)
PREFLIGHT: Final = Gauge(
    "magnetar_preflight_warnings", "Settings of the log that should be mended, found when the worker started.", _LABELS
)


def watch_disk(context: str, folder: Path) -> None:
    """Say at each scrape how full the disk is."""
    DISK_FREE.labels(context).set_function(partial(_disk_bytes, folder, "free"))
    DISK_SIZE.labels(context).set_function(partial(_disk_bytes, folder, "total"))


def _disk_bytes(folder: Path, which: str) -> float:
    try:
        return float(getattr(shutil.disk_usage(folder), which))
    except OSError:
        return 0.0


def examined(context: str, findings: Sequence[Finding]) -> None:
    """What was found of the log that is no danger, and is no good."""
    warnings = [finding for finding in findings if finding.severity is Severity.WARNING]
    PREFLIGHT.labels(context).set(len(warnings))
