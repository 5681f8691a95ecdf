"""What is found of a log's settings before anything is written, and what is made of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs import sqlite_plan
from magnetar.pipelines.logs.pulsar_policies import POLICIES, STRATEGY, new_namespace
from magnetar.pipelines.logs.pulsar_preflight import clocks, policy_findings, versions
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.preflight import Finding, Severity, examine, examine_read, refuse_dangers
from magnetar.pipelines.provisioning import Sign, apply, plan
from magnetar.pipelines.runtime import provision, run_worker
from magnetar.pipelines.settings import Settings, load_settings
from magnetar.schemas import Command, Event, Fault, LogUnsafe, SettingsError

from tests.unit.pipelines.foreign import billing, purses
from tests.unit.pipelines.purses import Purse

STANDALONE = {
    "defaultRetentionTimeInMinutes": "0",
    "defaultRetentionSizeInMB": "0",
    "brokerDeleteInactiveTopicsEnabled": "true",
    "ttlDurationDefaultInSeconds": "0",
    "backlogQuotaDefaultLimitBytes": "-1",
    "backlogQuotaDefaultLimitGB": "10.0",
    "backlogQuotaDefaultRetentionPolicy": "producer_request_hold",
    "allowAutoTopicCreation": "true",
    "schemaCompatibilityStrategy": "FULL",
    "isSchemaValidationEnforced": "false",
    "brokerDeduplicationEnabled": "false",
    "managedLedgerDefaultMarkDeleteRateLimit": "0.1",
    "subscriptionExpirationTimeMinutes": "0",
}
"""The part of a default standalone's configuration that matters."""


class Add(Command):
    pieces: int


class Added(Event):
    pieces: int


class AddedWider(Event, wire_name="Added"):
    pieces: float


class AddedTwice(Event):
    pass


class Stock(Aggregate):
    def execute(self, command: Add) -> Added:
        return Added(command.pieces)

    def apply(self, event: Added) -> Self:
        return self


class NewStock(Aggregate, wire_name="Stock"):
    def execute(self, command: Add) -> Added | AddedTwice:
        return Added(command.pieces)

    def apply(self, event: Added | AddedTwice) -> Self:
        return self


class WrongStock(Aggregate, wire_name="Stock"):
    def execute(self, command: Add) -> AddedWider:
        return AddedWider(1.0)

    def apply(self, event: AddedWider) -> Self:
        return self


def pipeline(aggregate: Any = Stock, *, partitions: int = 2) -> Pipeline:
    return Pipeline("depot", aggregates=[aggregate], partitions=partitions)


SETTINGS = Settings()


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[[], SqliteLog]]:
    opened: list[SqliteLog] = []

    def one() -> SqliteLog:
        opened.append(SqliteLog(tmp_path / "data", SystemClock()))
        return opened[-1]

    yield one
    for log in opened:
        log.close()


UNLIMITED = {"destination_storage": {"limitSize": -1, "limitTime": -1, "policy": "producer_exception"}}


def severities(policies: dict[str, Any], runtime: dict[str, str] | None = None) -> dict[str, Severity]:
    found = policy_findings("public/depot", policies, STANDALONE if runtime is None else runtime)
    return {each.check: each.severity for each in found}


# --- a Pulsar's policies ----------------------------------------------------------------------------------------------


def test_a_namespace_as_we_make_it_has_nothing_wrong() -> None:
    assert severities(new_namespace(STANDALONE)) == {}


def test_a_namespace_that_says_nothing_has_the_brokers_defaults() -> None:
    assert severities({}) == {
        "retention": Severity.DANGEROUS,
        "deletion of inactive topics": Severity.DANGEROUS,
        "backlog quota": Severity.DANGEROUS,
        "automatic topic creation": Severity.DANGEROUS,
        "schema compatibility": Severity.DANGEROUS,
        "schema validation": Severity.DANGEROUS,
        "deduplication": Severity.WARNING,
        "stored acknowledgements": Severity.WARNING,
    }


@pytest.mark.parametrize(
    ("key", "value", "check", "severity"),
    [
        (
            "retention_policies",
            {"retentionTimeInMinutes": -1, "retentionSizeInMB": 100},
            "retention",
            Severity.DANGEROUS,
        ),
        ("message_ttl_in_seconds", 60, "time to live", Severity.DANGEROUS),
        (
            "backlog_quota_map",
            {"destination_storage": {"limitSize": 1, "limitTime": -1, "policy": "consumer_backlog_eviction"}},
            "backlog quota",
            Severity.DANGEROUS,
        ),
        (
            "backlog_quota_map",
            {"destination_storage": {"limitSize": 1, "limitTime": -1, "policy": "producer_exception"}},
            "backlog quota",
            Severity.WARNING,
        ),
        (
            "backlog_quota_map",
            {**UNLIMITED, "message_age": {"limitSize": -1, "limitTime": 9, "policy": "consumer_backlog_eviction"}},
            "backlog quota by age",
            Severity.DANGEROUS,
        ),
        (
            "backlog_quota_map",
            {**UNLIMITED, "message_age": {"limitSize": -1, "limitTime": 9, "policy": "producer_request_hold"}},
            "backlog quota by age",
            Severity.WARNING,
        ),
        ("schema_compatibility_strategy", "ALWAYS_COMPATIBLE", "schema compatibility", Severity.DANGEROUS),
        ("schema_compatibility_strategy", "ALWAYS_INCOMPATIBLE", "schema compatibility", Severity.WARNING),
        ("schema_compatibility_strategy", "UNDEFINED", "schema compatibility", Severity.DANGEROUS),
        ("subscription_expiration_time_minutes", 5, "expiry of subscriptions", Severity.WARNING),
    ],
)
def test_one_wrong_policy_is_found_with_its_cure(key: str, value: Any, check: str, severity: Severity) -> None:
    policies = {**new_namespace(STANDALONE), key: value}
    assert severities(policies) == {check: severity}
    (finding,) = policy_findings("public/depot", policies, STANDALONE)
    assert "public/depot" in finding.mend
    assert finding.lost


def test_a_broker_with_safe_defaults_needs_no_policies() -> None:
    runtime = {
        **STANDALONE,
        "defaultRetentionTimeInMinutes": "-1",
        "defaultRetentionSizeInMB": "-1",
        "brokerDeleteInactiveTopicsEnabled": "false",
        "backlogQuotaDefaultLimitGB": "-1",
        "allowAutoTopicCreation": "false",
        "schemaCompatibilityStrategy": STRATEGY,
        "isSchemaValidationEnforced": "true",
        "brokerDeduplicationEnabled": "true",
        "managedLedgerDefaultMarkDeleteRateLimit": "50",
    }
    assert severities({}, runtime) == {}


def test_what_each_policy_is_set_to_is_fine() -> None:
    for policy in POLICIES:
        assert policy.is_fine(policy.wanted(policy.of_broker(STANDALONE))), policy.name
        assert policy.show(policy.wanted(policy.of_broker(STANDALONE)))


@pytest.mark.parametrize(
    ("off", "expected"),
    [(2, []), (-9, []), (60, [Severity.WARNING]), (-3600, [Severity.DANGEROUS]), (3600, [Severity.DANGEROUS])],
)
def test_clocks_may_be_off_by_a_little(off: float, expected: list[Severity]) -> None:
    assert [each.severity for each in clocks(1_000_000.0, 1_000_000.0 + off)] == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("4.0.8", []),
        ("4.1.0", [Severity.NOTE]),
        ("3.0.1-SNAPSHOT", [Severity.NOTE]),
        ("2.11.4", [Severity.WARNING]),
        ("unheard of", [Severity.WARNING]),
    ],
)
def test_versions_that_were_not_tested_are_said(version: str, expected: list[Severity]) -> None:
    assert [each.severity for each in versions(version)] == expected


# --- what is made of findings ---


def finding(severity: Severity) -> Finding:
    return Finding(severity, "retention", "namespace public/depot", "3 min", "unlimited", "it is lost", "set it")


def test_only_dangers_stop_a_worker_and_all_of_them_are_named() -> None:
    refuse_dangers([finding(Severity.WARNING), finding(Severity.NOTE)], of="depot")
    with pytest.raises(LogUnsafe) as error:
        refuse_dangers([finding(Severity.WARNING), finding(Severity.DANGEROUS)], of="depot")
    assert error.value.fault is Fault.WORLD
    assert "retention is 3 min, and must be unlimited; otherwise it is lost." in error.value.what
    assert "set it" in error.value.what
    assert error.value.what.count("retention") == 1


# --- the embedded log ---


def test_an_empty_folder_is_planned_provisioned_and_then_clean(open_log: Callable[[], SqliteLog]) -> None:
    log = open_log()
    assert {each.severity for each in examine(pipeline(), log)} == {Severity.WARNING}
    steps = plan(pipeline(), log, SETTINGS)
    assert [str(step) for step in steps] == [
        "+ topic depot/stock-events: 2 partitions",
        "+ topic depot/stock-checkpoints: 2 partitions",
        "+ topic depot/stock-commands: 2 partitions",
    ]
    done: list[object] = []
    apply(steps, done=done.append)
    assert done == steps
    assert plan(pipeline(), log, SETTINGS) == []
    assert examine(pipeline(), open_log()) == []


def test_a_new_event_type_is_planned_as_a_new_version(open_log: Callable[[], SqliteLog]) -> None:
    log = open_log()
    provision(pipeline(), log)
    (step,) = plan(pipeline(NewStock), log, SETTINGS)
    assert str(step) == (
        "+ schema of depot/stock-events: a new version with Commit.events.type = AddedTwice, Commit.events.AddedTwice"
    )
    apply([step])
    assert plan(pipeline(NewStock), log, SETTINGS) == []
    assert plan(pipeline(), log, SETTINGS) == [], "the old release may start again"


def test_what_cannot_be_is_refused_before_anything_is_done(open_log: Callable[[], SqliteLog]) -> None:
    log = open_log()
    provision(pipeline(), log)
    steps = plan(pipeline(WrongStock), log, SETTINGS)
    assert [step.sign for step in steps] == [Sign.REFUSED]
    with pytest.raises(SettingsError, match=r"Added\.pieces: was int, is float"):
        apply(steps)
    with pytest.raises(SettingsError, match="it has 2 partitions, and the pipeline declares 4"):
        apply(plan(pipeline(partitions=4), log, SETTINGS))
    assert {each.severity for each in examine(pipeline(partitions=4), log)} == {Severity.DANGEROUS}


def test_a_worker_does_not_start_with_a_schema_that_cannot_follow(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    run_worker(pipeline(), settings, stopped=lambda: True)
    with pytest.raises(SettingsError, match=r"Added\.pieces: was int, is float\. Keep what was there"):
        run_worker(pipeline(WrongStock), settings, stopped=lambda: True)


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("_file_system", lambda path: "nfs4", Severity.DANGEROUS),
        ("shutil", SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=10)), Severity.WARNING),
    ],
)
def test_a_folder_on_the_network_or_nearly_full_is_found(
    open_log: Callable[[], SqliteLog], monkeypatch: pytest.MonkeyPatch, name: str, value: object, severity: Severity
) -> None:
    log = open_log()
    provision(pipeline(), log)
    monkeypatch.setattr(sqlite_plan, name, value)
    assert [each.severity for each in examine(pipeline(), log)] == [severity]


def test_the_file_system_of_a_folder_is_known(tmp_path: Path) -> None:
    assert sqlite_plan._file_system(tmp_path) not in ("", "nfs")
    assert shutil.disk_usage(tmp_path).free > 0


# --- settings ---


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNETAR_TOKEN", "s3cret")
    settings = load_settings()
    assert settings.token is not None
    assert settings.token.get_secret_value() == "s3cret"
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_token_is_given_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGNETAR_TOKEN", "s3cret")
    monkeypatch.setenv("MAGNETAR_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(SettingsError, match="Both MAGNETAR_TOKEN and MAGNETAR_TOKEN_FILE") as error:
        load_settings()
    assert "s3cret" not in str(error.value)


def test_what_is_read_of_another_context_is_looked_for(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, SystemClock())
    provision(billing, log)
    missing, *_ = examine_read(billing, log)
    assert (missing.severity, missing.subject) == (Severity.WARNING, "topic purses/purse-events")
    assert "purses makes it" in missing.lost
    provision(Pipeline("purses", aggregates=[Purse], partitions=purses.partitions + 1), log)
    other = next(each for each in examine_read(billing, log) if each.subject == missing.subject)
    assert (other.check, other.wanted) == ("number of partitions", str(purses.partitions))
    log.close()
    log = SqliteLog(tmp_path / "another", SystemClock())
    provision(purses, log)
    assert list(examine_read(billing, log)) == []
    log.close()
