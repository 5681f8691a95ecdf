"""In a pod of the chart: which of the chart's values the settings come from, for those who read an error there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from typing import Final

_SETTING: Final = re.compile(r"MAGNETAR_[A-Z_]+")

CHART_SETTINGS: Final = ("MAGNETAR_CHART_SETTINGS", "MAGNETAR_CHART_SETTINGS_CLICKHOUSE")
"""Where the chart writes it: for each setting, the value, and the Secret or ConfigMap that it names. Two, since workers
are not made anew when what leads to ClickHouse changes."""


def in_chart(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """What the settings that a text names are in the chart's values; empty outside of the chart. Never raises."""
    known: dict[str, str] = {}
    for name in CHART_SETTINGS:
        with contextlib.suppress(ValueError, TypeError):
            known |= json.loads(environment.get(name, "{}"))
    named = dict.fromkeys(name for name in _SETTING.findall(text) if name in known)
    told = [f"{name} is {known[name]}" for name in named if known[name] not in text]
    return f"In the chart's values, {'; '.join(told)}." if told else ""


def of_the_module(cure: str, environment: Mapping[str, str] = os.environ) -> str:
    """A cure for the pipeline's module; in the chart, with what that is in its values."""
    if not any(name in environment for name in CHART_SETTINGS):
        return cure
    return (
        f"{cure.rstrip('.')}. In the chart's values it is pipeline.module, and the image that has to have it "
        "image.repository."
    )
