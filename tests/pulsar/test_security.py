"""Tokens and TLS, on a Pulsar that wants both: who may do what, and how quickly a refusal is said."""

import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import structlog
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Appender
from magnetar.pipelines.logs import pulsar_consumer
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_admin import WORKERS
from magnetar.pipelines.preflight import Severity
from magnetar.pipelines.provisioning import RIGHTS, WantedTopic, apply, wanted_topics
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.worker import WorkerOptions
from magnetar.schemas import AccessDenied, LogUnavailable, MagnetarError, SettingsError, Topic, TopicKind

from tests.chaos.processes import eventually
from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, WIDER, entries, numbers
from tests.e2e.conftest import Shell
from tests.helm.conftest import Chart, chart, minimal
from tests.helm.in_pod import settings_in_pod
from tests.pulsar.crew import MODULE, ROOT
from tests.pulsar.test_scaling import backlog
from tests.pulsar.yard import LONG, commits, working
from tests.pulsar_rig import Existing, data_folder, free_ports, started
from tests.pulsar_secured import ADMIN, Authority, Secured
from tests.unit.pipelines.purses import Pay, Purse

__all__ = ["chart"]  # a fixture of theirs

SOON_SECONDS = 10.0
"""Less than the fifteen seconds after which Pulsar's client would give up, on a busy machine."""

ROLES = {"worker": "{context}-{aggregate}-worker", "projector": "{context}-mirror", "client": "{context}-client"}
COMMANDS, EVENTS = (Topic("safe", "Thing", kind) for kind in (TopicKind.COMMANDS, TopicKind.EVENTS))
WORKER, MIRROR, CLIENT = "safe-thing-worker", "safe-mirror", "safe-client"


@pytest.fixture(scope="module")
def secured(broker: Existing) -> Iterator[Secured]:
    """A second Pulsar, with a context `safe` that an administrator has provisioned."""
    with data_folder() as folder, started(Secured(folder)) as secured:
        wanted = [WantedTopic(Topic("safe", "Thing", kind), 1, SCHEMA) for kind in TopicKind]
        wanted.append(WantedTopic(Topic("safe", "Other", TopicKind.EVENTS), 1, SCHEMA))
        with opened(secured, secured.token(ADMIN)) as log:
            apply(log.plan(wanted, ROLES))
            assert log.plan(wanted, ROLES) == []
        yield secured


def settings_of(secured: Secured, token: str | None = None, **others: object) -> Settings:
    """Of somebody with this token."""
    return Settings.model_validate(
        {
            "broker": secured.service_url,
            "broker_admin": secured.admin_url,
            "tls_ca": secured.authority.certificate,
            "token": token,
            **others,
        }
    )


@contextmanager
def opened(secured: Secured, token: str | None = None, **others: object) -> Iterator[PulsarLog]:
    """The log as its settings open it."""
    log = open_log(settings_of(secured, token, **others), SystemClock())
    assert isinstance(log, PulsarLog)
    try:
        yield log
    finally:
        log.close()


def refused_soon(
    secured: Secured,
    match: str,
    token: str | None = None,
    *,
    error: type[MagnetarError] = LogUnavailable,
    **others: object,
) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=match), opened(secured, token, **others):
        pass
    assert time.monotonic() - started < SOON_SECONDS


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda secured: None, "wants a token, and none is set"),
        (lambda secured: "nonsense", "damaged, or signed by another"),
        (lambda secured: secured.token(ADMIN)[:-4] + "AAAA", "damaged, or signed by another"),
        (lambda secured: secured.token(ADMIN, seconds=-60), "MAGNETAR_TOKEN expired at 2"),
    ],
    ids=["missing", "garbage", "bad signature", "expired"],
)
def test_a_bad_token_is_said_at_once(secured: Secured, make: Callable[[Secured], str | None], match: str) -> None:
    token = make(secured)
    refused_soon(secured, match, token)


def test_no_secret_is_in_what_is_printed(secured: Secured) -> None:
    token = secured.token(ADMIN, seconds=-60)
    settings = Settings(token=token)  # type: ignore[arg-type]
    with pytest.raises(AccessDenied) as error, opened(secured, token):
        pass
    assert token not in f"{settings!r} {settings} {error.value} {error.value.fields} {error.value.cure}"


def provisioned(admin: PulsarLog) -> Pipeline:
    """A pipeline of its own, whose topics an administrator has made, with the rights to them."""
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=1)
    apply(admin.plan(wanted_topics(pipeline), ROLES))
    return pipeline


@pytest.fixture
def shell(secured: Secured, tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a folder with a pipeline in `crew.py`."""
    shell = Shell(tmp_path)
    shell.environment |= {
        "MAGNETAR_BROKER": secured.service_url,
        "MAGNETAR_BROKER_ADMIN": secured.admin_url,
        "MAGNETAR_TLS_CA": str(secured.authority.certificate),
        "MAGNETAR_CLICKHOUSE": f"http://127.0.0.1:{free_ports(1)[0]}",
    }
    yield shell
    shell.close()


def command_lines(pid: int) -> str:
    """Of a process and of all that it has started, as everybody on the machine can read them."""
    process = Path("/proc") / str(pid)
    children = " ".join(each.read_text() for each in process.glob("task/*/children")).split()
    return (process / "cmdline").read_text() + "".join(f"\n{command_lines(int(child))}" for child in children)


def test_no_secret_is_in_what_processes_say_nor_in_their_command_lines(secured: Secured, shell: Shell) -> None:
    with opened(secured, secured.token(ADMIN)) as admin:
        pipeline = provisioned(admin)
    (shell.folder / "crew.py").write_text(MODULE.format(root=str(ROOT), context=pipeline.name, partitions=1))
    worker, client, mirror = (secured.token(f"{pipeline.name}-{role}") for role in ("purse-worker", "client", "mirror"))
    damaged, password = worker[:-4] + "AAAA", "open-sesame-4711"
    shell.environment |= {"MAGNETAR_TOKEN": worker, "MAGNETAR_CLICKHOUSE_PASSWORD": password}
    log, debug = shell.folder / "run.log", ("--log-level", "debug")

    supervisor = shell.start("run", "crew", "-w", "2", *debug)
    with SyncClient(pipeline, settings=settings_of(secured, client)) as asking:
        assert asking.ask(Purse, "a", Pay(1), timeout_seconds=LONG).version == 1
    shown = command_lines(supervisor.pid)
    assert shown.count("--supervised") == 2
    supervisor.terminate()
    assert supervisor.wait(LONG) == 0
    said = log.read_text()
    assert "partition taken" in said

    shell.environment["MAGNETAR_TOKEN"] = mirror
    projector = shell.start("run", "crew", "--role", "projector", *debug)
    shell.eventually(lambda: "waiting" in log.read_text(), "it waits for ClickHouse, which is not there", LONG)
    shown += command_lines(projector.pid)
    projector.terminate()
    projector.wait(LONG)
    said += log.read_text()

    shell.environment["MAGNETAR_TOKEN"] = damaged
    refused = shell.run("run", "crew", *debug)
    assert "damaged" in refused.stderr
    said += refused.stdout + refused.stderr
    for secret in (worker, mirror, damaged, password):
        assert secret.rpartition(".")[2] not in said + shown


def test_a_releases_settings_lead_there_and_an_error_names_the_value_that_is_wrong(
    secured: Secured, shell: Shell, chart: Chart, tmp_path: Path
) -> None:
    """By what the chart's Job finds in its container, with the token and the authority out of Secrets."""
    context = f"c{uuid.uuid4().hex[:12]}"
    (shell.folder / "crew.py").write_text(MODULE.format(root=str(ROOT), context=context, partitions=1))
    pulsar = {
        "url": secured.service_url,
        "adminUrl": secured.admin_url,
        "auth": {"existingSecret": "jwt", "key": "jwt.txt"},
        "tls": {"caSecret": "brokers-tls"},
    }
    objects = chart.render(minimal(pulsar=pulsar, workers={"purse": {"aggregate": "Purse"}}))
    ours, other = secured.authority.certificate.read_text(), Authority(tmp_path / "other").certificate.read_text()

    def provisioned_with(token: str, authority: str) -> str:
        secrets = {"jwt": {"jwt.txt": token}, "brokers-tls": {"ca.crt": authority, "tls.key": "a private key"}}
        settings = settings_in_pod(objects, ("Job", "rel-provision"), tmp_path / "mounted", secrets)
        assert not list(tmp_path.glob("mounted/**/tls.key"))
        shell.environment = {k: v for k, v in shell.environment.items() if not k.startswith("MAGNETAR_")} | settings
        del shell.environment["MAGNETAR_CHART_VALUES"]  # of a pipeline with this context
        ran = shell.run("provision", "crew")
        return f"{ran.returncode}: {ran.stderr or ran.stdout}"

    assert "Nothing is left to do." in provisioned_with(secured.token(ADMIN), ours)
    refused = provisioned_with(secured.token(ADMIN)[:-4] + "AAAA", ours)
    assert refused.startswith("3: magnetar: Pulsar does not take the token from MAGNETAR_TOKEN_FILE")
    named = (
        "In the chart's values, MAGNETAR_TOKEN_FILE is pulsar.auth.existingSecret (the key jwt.txt of the Secret jwt)."
    )
    assert named in refused
    refused = provisioned_with(secured.token(ADMIN), other)
    assert refused.startswith("2: "), "no waiting mends it"
    assert "CERTIFICATE_VERIFY_FAILED" in refused
    assert "MAGNETAR_TLS_CA is pulsar.tls.caSecret (the key ca.crt of the Secret brokers-tls)" in refused
    refused = provisioned_with(secured.token(f"{context}-client"), ours)
    assert "does not allow this role" in refused
    assert named in refused


def test_a_certificate_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    refused_soon(
        secured, "CERTIFICATE_VERIFY_FAILED", secured.token(ADMIN), error=SettingsError, tls_ca=other.certificate
    )
    with (
        pytest.raises(SettingsError, match=r"The certificate of the broker at .* is not taken: ") as refused,
        opened(secured, secured.token(WORKER), broker_admin=secured.plain.admin_url, tls_ca=other.certificate),
    ):
        pass
    assert "MAGNETAR_TLS_CA" in refused.value.cure


def test_a_port_that_speaks_tls_or_does_not_is_told_from_the_other(secured: Secured) -> None:
    port = secured.admin_url.rpartition(":")[2]
    with (
        pytest.raises(SettingsError, match="does not answer") as refused,
        opened(secured, secured.token(ADMIN), broker_admin=f"http://localhost:{port}"),
    ):
        pass
    assert "MAGNETAR_BROKER_ADMIN is then https://" in refused.value.cure
    plain = secured.plain.admin_url.replace("http:", "https:")
    with (
        pytest.raises(SettingsError, match="does not answer") as refused,
        opened(secured, secured.token(ADMIN), broker_admin=plain),
    ):
        pass
    assert "MAGNETAR_BROKER_ADMIN is then http://" in refused.value.cure


def test_who_runs_when_the_token_expires_says_so_and_not_that_the_broker_is_gone(secured: Secured) -> None:
    with opened(secured, secured.token(WORKER, seconds=3)) as worker:
        with pytest.raises(LogUnavailable, match="in time"), worker._translated("reading"):
            raise LogUnavailable("Pulsar did not answer in time while reading.")
        eventually(lambda: worker._access.has_expired, "the token expires")
        with pytest.raises(AccessDenied, match="MAGNETAR_TOKEN expired at 2"), worker._translated("reading"):
            raise LogUnavailable("Pulsar did not answer in time while reading.")


def test_the_host_name_is_checked_unless_that_is_refused_by_name(secured: Secured) -> None:
    token = secured.token(WORKER)
    wrong = {"broker_admin": secured.admin_url.replace("localhost", "127.0.0.1")}
    refused_soon(secured, "CERTIFICATE_VERIFY_FAILED", token, error=SettingsError, **wrong)
    with opened(secured, token, tls_validate_hostname=False, **wrong) as log:
        log.describe(EVENTS)
    wrong = {"broker": secured.service_url.replace("localhost", "127.0.0.1")}
    named = "is not taken: IP address mismatch, certificate is not valid for '127.0.0.1'"
    refused_soon(secured, named, token, error=SettingsError, **wrong)
    with opened(secured, token, tls_validate_hostname=False, **wrong) as log:
        log.reader(EVENTS, 0, after=None)


def test_each_role_can_do_its_part(secured: Secured) -> None:
    with opened(secured, secured.token(CLIENT)) as client, opened(secured, secured.token(WORKER)) as worker:
        inbox = client.inbox()
        for kind in TopicKind:
            worker.provision(Topic("safe", "Thing", kind), partitions=1, schema=SCHEMA)
        client.publisher(COMMANDS, schema=SCHEMA).publish(0, entries(1), timeout_seconds=DEADLINE_SECONDS)
        assert [each.end is not None for each in client.reached(COMMANDS)] == [True]
        consumer = worker.consumer(COMMANDS, name="w")
        batch = consumer.receive(messages_max=10, timeout_seconds=DEADLINE_SECONDS)
        assert batch is not None
        assert consumer.is_granted(0)
        appender = worker.fence(EVENTS, 0, schema=SCHEMA, name="w")
        last = appender.append(entries(7), timeout_seconds=DEADLINE_SECONDS)
        checkpoints = Topic("safe", "Thing", TopicKind.CHECKPOINTS)
        block = worker.fence(checkpoints, 0, schema=SCHEMA, name="w").append(
            entries(1), timeout_seconds=DEADLINE_SECONDS
        )
        worker.trim(checkpoints, 0, through=block)
        assert client.schema(EVENTS, 0) == SCHEMA
        worker.reply(inbox.address, [b"reply"])
        assert list(inbox.receive(timeout_seconds=DEADLINE_SECONDS)) == [b"reply"]
        assert worker.end(EVENTS, 0) == last
    with opened(secured, secured.token(MIRROR)) as mirror:
        mirror.provision(EVENTS, partitions=1, schema=SCHEMA)
        messages = mirror.reader(EVENTS, 0, after=None).read(messages_max=1, timeout_seconds=DEADLINE_SECONDS)
        assert numbers(messages) == [7]


def test_keda_may_read_the_backlog_with_the_workers_token(secured: Secured) -> None:
    token = secured.token(WORKER)
    with opened(secured, token) as worker:
        worker.consumer(COMMANDS, name="w").receive(messages_max=1, timeout_seconds=0.1)
    headers = {"Authorization": f"Bearer {token}", "X-Pulsar-Auth-Method-Name": "token"}
    authority = ssl.create_default_context(cafile=str(secured.authority.certificate))
    metadata = {
        "adminURL": secured.admin_url,
        "topic": f"persistent://public/{COMMANDS}",
        "isPartitionedTopic": "true",
        "subscription": WORKERS,
    }
    with httpx.Client(headers=headers, verify=authority) as client:
        assert backlog(metadata, client.get) >= 0
    with httpx.Client(verify=authority) as nobody, pytest.raises(httpx.HTTPStatusError, match="401"):
        backlog(metadata, nobody.get)


def test_no_role_can_do_anothers_part(secured: Secured) -> None:
    assert "produce" not in RIGHTS[TopicKind.EVENTS]["projector"]
    with opened(secured, secured.token(MIRROR)) as mirror:
        with pytest.raises(AccessDenied):
            mirror.fence(EVENTS, 0, schema=SCHEMA, name="mirror")
        with pytest.raises(AccessDenied):
            mirror.describe(COMMANDS)
    with opened(secured, secured.token(WORKER)) as worker, pytest.raises(AccessDenied):
        worker.fence(Topic("safe", "Other", TopicKind.EVENTS), 0, schema=SCHEMA, name="worker")
    with opened(secured, secured.token(CLIENT)) as client:
        with pytest.raises(AccessDenied):
            client.fence(EVENTS, 0, schema=SCHEMA, name="client")
        with pytest.raises(AccessDenied):
            client.consumer(COMMANDS, name="client")


def test_a_worker_without_rights_is_told_to_have_it_provisioned(secured: Secured) -> None:
    with opened(secured, secured.token(WORKER)) as worker:
        with pytest.raises(AccessDenied) as error:
            worker.provision(EVENTS, partitions=1, schema=WIDER)
        assert "magnetar provision" in error.value.cure
        with pytest.raises(SettingsError, match=r"R\.x: was int, is str"):
            worker.provision(EVENTS, partitions=1, schema=SCHEMA.replace('"long"', '"string"'))
        with pytest.raises(AccessDenied):
            worker.provision(Topic("safe", "New", TopicKind.EVENTS), partitions=1, schema=SCHEMA)


def test_a_worker_without_rights_is_told_at_once_of_a_namespace_or_tenant_that_is_missing(secured: Secured) -> None:
    """Neither is the log's, for which a worker that starts would wait."""
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=1)
    says = "is missing or hidden, and this role may not make it"
    with opened(secured, secured.token(WORKER)) as worker, pytest.raises(AccessDenied, match=says) as error:
        provision(pipeline, worker)
    assert "magnetar provision" in error.value.cure
    says = "There is no tenant elsewhere on this Pulsar"
    wrong = opened(secured, secured.token(WORKER), tenant="elsewhere")
    with wrong as worker, pytest.raises(SettingsError, match=says) as refused:
        provision(pipeline, worker)
    assert "magnetar provision" in refused.value.cure


def test_a_role_that_may_not_read_policies_is_told_so_and_not_stopped(secured: Secured) -> None:
    with opened(secured, secured.token(WORKER)) as worker:
        found = worker.examine([WantedTopic(Topic("safe", "Thing", kind), 1, SCHEMA) for kind in TopicKind])
    assert {each.check: each.found for each in found} == {
        "configuration": "hidden from this role",
        "policies": "hidden from this role",
    }


def test_an_administrator_of_the_tenant_alone_sets_what_he_cannot_see(secured: Secured) -> None:
    """The broker's own configuration is a superuser's to see: what a namespace leaves to it may be anything."""
    tenant, pipeline = f"t{uuid.uuid4().hex[:12]}", Pipeline("left", aggregates=[Purse], partitions=1)
    with opened(secured, secured.token(ADMIN), tenant=tenant) as superuser:
        admin = superuser._admin
        admin.call("PUT", f"/tenants/{tenant}", {"allowedClusters": admin.clusters(), "adminRoles": ["owner"]})
        admin.call("PUT", f"/namespaces/{tenant}/left")
        with opened(secured, secured.token("owner"), tenant=tenant) as owner:
            steps = owner.plan(wanted_topics(pipeline), {})
            hidden = "deletion of inactive topics the broker's, which this role may not see → off"
            assert f"~ namespace {tenant}/left: {hidden}" in [str(step) for step in steps]
            apply(steps)
            assert owner.plan(wanted_topics(pipeline), {}) == []
        found = superuser.examine(wanted_topics(pipeline))
    assert [each for each in found if each.severity is Severity.DANGEROUS] == []


def fence_until_refused(log: PulsarLog, topic: Topic) -> None:
    """The broker remembers for a while what a role may."""
    while True:
        log.fence(topic, 0, schema=SCHEMA, name="w").close()
        time.sleep(0.2)


def fence_when_allowed(log: PulsarLog, topic: Topic) -> Appender:
    """Nor does it learn at once what a role may now."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return log.fence(topic, 0, schema=SCHEMA, name="w")
        except AccessDenied:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_right_that_is_taken_away_is_missed_by_name_and_given_back(secured: Secured) -> None:
    other = Topic("safe", "Other", TopicKind.EVENTS)
    wanted = [WantedTopic(other, 1, SCHEMA)]
    role = "safe-other-worker"
    with opened(secured, secured.token(ADMIN)) as admin, opened(secured, secured.token(role)) as worker:
        worker.fence(other, 0, schema=SCHEMA, name="worker").append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        admin._admin.call("DELETE", f"/persistent/public/{other}/permissions/{role}")
        with pytest.raises(AccessDenied):
            fence_until_refused(worker, other)
        assert [str(step) for step in admin.plan(wanted, ROLES)] == [
            f"+ topic public/{other}: role {role} may consume and produce"
        ]
        (found,) = admin.examine_rights(wanted, ROLES)
        assert f"{found.subject}: {found.check}" == f"topic public/{other}: the right of {role} to consume and produce"
        assert [each.found for each in worker.examine_rights(wanted, ROLES)] == ["hidden from this role"]
        apply(admin.plan(wanted, ROLES))
        assert admin.examine_rights(wanted, ROLES) == []
        fence_when_allowed(worker, other).append(entries(2), timeout_seconds=DEADLINE_SECONDS)
        read = worker.reader(other, 0, after=None).read(messages_max=2, timeout_seconds=DEADLINE_SECONDS)
        assert numbers(read)[0] == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (TopicKind.EVENTS, r"does not allow this role fencing .*-events partition 0: it lacks the right to produce"),
        (TopicKind.COMMANDS, r"does not allow this role subscribing to .*-commands: it lacks the right to consume"),
    ],
    ids=["to write events", "to read commands"],
)
def test_a_right_that_is_taken_from_a_running_worker_is_named_and_nothing_is_lost(
    secured: Secured, kind: TopicKind, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulsar_consumer, "_UNCONNECTED_SECONDS_MAX", 2.0)
    monkeypatch.setattr(pulsar_consumer, "_JOIN_AGAIN_SECONDS", 1.0)
    with opened(secured, secured.token(ADMIN)) as admin:
        pipeline = provisioned(admin)
        role, wanted = f"{pipeline.name}-purse-worker", wanted_topics(pipeline)
        settings = settings_of(secured, secured.token(f"{pipeline.name}-client"))
        sent: list[str] = []
        with (
            opened(secured, secured.token(role)) as log,
            SyncClient(pipeline, settings=settings) as client,
            structlog.testing.capture_logs() as logged,
            working(pipeline, log, SystemClock()) as workers,
        ):
            workers["Purse"]._options = WorkerOptions(append_timeout_seconds=3.0)

            def is_denied() -> bool:
                sent.append(client.send(Purse, "a", Pay(1), timeout_seconds=LONG))
                return any(re.search(says, f"{each.get('detail')} {each.get('why')}") for each in logged)

            assert client.ask(Purse, "a", Pay(1), timeout_seconds=LONG).version == 1
            admin._admin.call("DELETE", f"/persistent/public/{pipeline.topic('Purse', kind)}/permissions/{role}")
            eventually(is_denied, "the worker says which right it lacks")
            apply(admin.plan(wanted, ROLES))
            assert client.ask(Purse, "a", Pay(1), timeout_seconds=LONG).version == len(sent) + 2
        decided = commits(pipeline, admin)
        assert [each.command_id for each in decided[1:-1]] == sent
        assert {each.outcome for each in decided} == {"accepted"}


def test_a_token_in_a_file_is_renewed_without_a_restart(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "token"
    life_seconds = 20.0
    file.write_text(secured.token(WORKER, seconds=life_seconds) + "\n")
    deadline = time.time() + life_seconds
    with opened(secured, token_file=file) as log:
        appender = log.fence(EVENTS, 0, schema=SCHEMA, name="worker")
        appender.append(entries(1), timeout_seconds=DEADLINE_SECONDS)
        file.write_text(secured.token(WORKER))
        while time.time() < deadline + 2:  # the broker asks again every two seconds
            appender.append(entries(2), timeout_seconds=DEADLINE_SECONDS)
            log.describe(EVENTS)
            time.sleep(0.1)
        file.unlink()  # who runs goes on with the last one
        log.describe(EVENTS)
        appender.append(entries(3), timeout_seconds=DEADLINE_SECONDS)
    with pytest.raises(SettingsError, match=f"cannot be read from MAGNETAR_TOKEN_FILE .{file}."):
        open_log(settings_of(secured, token_file=file), SystemClock())
