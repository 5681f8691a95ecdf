"""In a pod of the chart, an error that names a setting names the chart's value too."""

import json
import os
import subprocess
import sys

import pytest
from magnetar.pipelines.chart_settings import CHART_SETTINGS, in_chart

PULSAR, CLICKHOUSE = CHART_SETTINGS
POD = {
    PULSAR: json.dumps({"MAGNETAR_TOKEN_FILE": "pulsar.auth.existingSecret", "MAGNETAR_BROKER": "pulsar.url"}),
    CLICKHOUSE: json.dumps({"MAGNETAR_CLICKHOUSE_USER": "clickhouse.user", "MAGNETAR_CLICKHOUSE": "clickhouse.url"}),
}


def test_each_setting_that_a_text_names_is_told_once() -> None:
    text = "From MAGNETAR_TOKEN_FILE (/etc). See MAGNETAR_TOKEN_FILE, MAGNETAR_CLICKHOUSE_USER and MAGNETAR_DATA."
    told = "MAGNETAR_TOKEN_FILE is pulsar.auth.existingSecret; MAGNETAR_CLICKHOUSE_USER is clickhouse.user."
    assert in_chart(text, POD) == f"In the chart's values, {told}"


@pytest.mark.parametrize("text", ["", "Nothing.", "MAGNETAR_BROKER, which is pulsar.url", "MAGNETAR_BROKERS"])
def test_what_names_none_or_says_the_value_already_is_left_as_it_is(text: str) -> None:
    assert in_chart(text, POD) == ""


@pytest.mark.parametrize("written", ["", "{", "7", "[[1]]", "null"])
def test_what_no_chart_has_written_there_is_left_alone(written: str) -> None:
    assert in_chart("MAGNETAR_BROKER", {PULSAR: written}) == ""
    assert in_chart("MAGNETAR_BROKER", {}) == ""


def test_a_line_of_the_log_says_it_too() -> None:
    script = """
import structlog
from magnetar.pipelines.logging import configure_logging
configure_logging("info")
structlog.get_logger().warning("waiting", what="No token.", cure="Set MAGNETAR_TOKEN_FILE.")
structlog.get_logger().warning("waiting", what="No answer.")
"""
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=os.environ | POD, capture_output=True, text=True, check=True)
    named, other = map(json.loads, ran.stderr.splitlines())
    assert named["chart_values"] == "In the chart's values, MAGNETAR_TOKEN_FILE is pulsar.auth.existingSecret."
    assert "chart_values" not in other
