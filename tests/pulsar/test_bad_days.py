"""What goes wrong around a pipeline on a real Pulsar: a clear error, nothing lost, and the healthy rest goes on."""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import _pulsar
import pulsar
import pytest
import structlog
from magnetar.aggregates import Aggregate
from magnetar.pipelines import CommandParked, Outgoing, Pipeline, SyncClient
from magnetar.pipelines.cli.shared import EXIT_WORLD, EXIT_YOURS
from magnetar.pipelines.clock import Clock, SystemClock
from magnetar.pipelines.history import log_of
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_send import PassThrough
from magnetar.pipelines.preflight import Severity
from magnetar.pipelines.provisioning import apply, wanted_topics
from magnetar.pipelines.runtime import preflight, provision
from magnetar.pipelines.settings import Settings
from magnetar.schemas import (
    Command,
    Event,
    LogUnsafe,
    PartitionRefused,
    SettingsError,
    TopicKind,
)
from magnetar.schemas.framing import write_long

from tests.chaos.processes import eventually
from tests.e2e.conftest import Shell
from tests.pulsar.crew import MODULE, ROOT
from tests.pulsar.yard import LONG, Yard, working
from tests.pulsar_rig import Existing, Standalone, free_ports
from tests.unit.pipelines.purses import LateClock, Paid, Pay, Purse, new_id


@pytest.fixture
def yard(broker: Existing, open_log: Callable[..., PulsarLog]) -> Yard:
    return Yard(broker, open_log)


# --- the broker -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a folder with a pipeline in `crew.py`."""
    context = f"c{uuid.uuid4().hex[:12]}"
    (tmp_path / "crew.py").write_text(MODULE.format(root=str(ROOT), context=context, partitions=2))
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def test_a_worker_waits_for_a_broker_that_is_not_up_and_gives_up_when_it_was_told_to(shell: Shell) -> None:
    port, web = free_ports(2)
    shell.environment |= {
        "MAGNETAR_BROKER": f"pulsar://127.0.0.1:{port}",
        "MAGNETAR_BROKER_ADMIN": f"http://127.0.0.1:{web}",
        "MAGNETAR_BROKER_WAIT_SECONDS": "2",
    }
    for workers in ("1", "2"):
        ran = shell.run("run", "crew", "-w", workers)
        assert ran.returncode == 3
        assert "waiting for the log" in ran.stderr
        assert "does not answer" in ran.stderr.splitlines()[-1]
    ran = shell.run("status", "crew")
    assert ran.returncode == 3
    assert "waiting" not in ran.stderr  # whoever looks wants to know at once


def test_a_worker_that_waited_goes_to_work_when_the_broker_is_up(shell: Shell, standalone: Standalone) -> None:
    shell.environment |= {
        "MAGNETAR_BROKER": standalone.service_url,
        "MAGNETAR_BROKER_ADMIN": standalone.admin_url,
        "MAGNETAR_BROKER_WAIT_SECONDS": "900",
    }
    standalone.kill()
    try:
        shell.start("run", "crew")
        log = shell.folder / "run.log"
        shell.eventually(lambda: "waiting for the log" in log.read_text(), "the worker says that it waits", LONG)
    finally:
        standalone.start()
    asked: list[subprocess.CompletedProcess[str]] = []

    def is_decided() -> bool:
        """The topics are there when the worker has looked again: until then, an ask fails at once."""
        command = ("ask", "crew", "Purse", "a", "Pay", '{"amount": 5}', "--timeout", str(LONG))
        asked.append(shell.run(*command, timeout=2 * LONG))
        return asked[-1].returncode != EXIT_WORLD

    shell.eventually(is_decided, "the worker has made the topics", LONG)
    assert asked[-1].returncode == 0, asked[-1].stderr + log.read_text()


# --- topics -----------------------------------------------------------------------------------------------------------


def test_without_its_topics_an_aggregate_stands_still_and_the_others_go_on(yard: Yard) -> None:
    """The topics are deleted under a running worker, and made again: their commands are not "already decided"."""
    with yard.working() as workers:
        assert (yard.pay(0).total, yard.pay(0).total, yard.knock()) == (1, 2, 1)
        with structlog.testing.capture_logs() as logged:
            yard.delete(yard.commands)
            yard.delete(yard.events)
            eventually(lambda: any("cannot be joined" in each["event"] for each in logged), "the worker says so")
        assert yard.knock() == 2
        assert workers["Purse"].owned == ()
        provision(yard.pipeline, yard.open_log())
        assert [yard.pay(0).total for _ in range(3)] == [1, 2, 3]  # a new log, which begins with nothing
        assert yard.knock() == 3
    incarnation = yard.open_log().describe(yard.commands).incarnation
    assert [(each.number, each.source.incarnation) for each in yard.commits()] == [(n, incarnation) for n in (1, 2, 3)]


def test_a_command_topic_that_was_made_anew_is_read_from_its_start_and_the_states_stay(yard: Yard) -> None:
    with yard.working():
        assert [yard.pay(0).total for _ in range(3)] == [1, 2, 3]
    yard.delete(yard.commands)
    provision(yard.pipeline, yard.open_log())
    with yard.working():
        assert [yard.pay(0).total for _ in range(3)] == [4, 5, 6]
    assert [each.number for each in yard.commits()] == [1, 2, 3, 4, 5, 6]
    assert len({each.source.incarnation for each in yard.commits()}) == 2


def test_an_event_topic_that_is_gone_is_not_begun_anew_by_a_worker_that_starts(yard: Yard) -> None:
    with yard.working():
        yard.pay(0)
    yard.delete(yard.events)
    with pytest.raises(SettingsError, match=r"purse-events: it is gone, and commands were decided"):
        provision(yard.pipeline, yard.open_log())


def refused_by_the_next(yard: Yard) -> str:
    """Why the next worker refuses partition 0, while it decides on the others."""

    def refusals() -> list[str]:
        return [each["what"] for each in logged if each["event"] == "partition refused"]

    with structlog.testing.capture_logs() as logged, yard.working():
        with yard.client() as client:
            client.send(Purse, yard.ids[0], Pay(1))
        eventually(refusals, "the partition is refused", seconds=60)
        assert (yard.pay(1).total, yard.knock()) == (2, 1)
    (refused,) = refusals()
    return str(refused)


def test_a_partition_that_somebody_deleted_is_named_and_made_again_unless_it_was_a_log(yard: Yard) -> None:
    """Of a topic whose other partitions are there."""
    wanted = wanted_topics(yard.pipeline)
    with yard.working():
        assert yard.pay(0).total == 1
    yard.delete_partition(yard.commands, 0)
    found = [str(each) for each in yard.log.examine(wanted)]
    assert any(f"{yard.commands}: partition 0 is missing" in each for each in found), found
    steps = yard.log.plan(wanted, {})
    assert [str(step) for step in steps] == [f"~ topic public/{yard.commands}: partition 0 missing → made"]
    apply(steps)
    assert yard.log.plan(wanted, {}) == []
    with yard.working():
        assert yard.pay(0).total == 2
    yard.delete_partition(yard.events, 0)
    with pytest.raises(SettingsError, match=r"purse-events: partition 0: gone, and commands were decided there"):
        apply(yard.log.plan(wanted, {}))
    (gone,) = [each for each in yard.log.examine(wanted) if each.check == "partition 0"]
    assert (gone.severity, gone.found) == (Severity.DANGEROUS, "gone")


def test_a_partition_of_checkpoints_that_somebody_deleted_gets_its_keeper_again(yard: Yard) -> None:
    wanted, checkpoints = wanted_topics(yard.pipeline), yard.topic("Purse", TopicKind.CHECKPOINTS)
    yard.delete_partition(checkpoints, 1)
    apply(yard.log.plan(wanted, {}))
    assert yard.log.plan(wanted, {}) == []
    yard.admin("DELETE", f"/persistent/public/{checkpoints}-partition-1/subscription/keeper?force=true")
    assert any("purse-checkpoints: trimming is off" in str(each) for each in yard.log.examine(wanted))
    assert [str(each) for each in yard.log.plan(wanted, {})] == [f"+ topic public/{checkpoints}: subscription keeper"]


def test_a_log_that_was_deleted_while_nobody_worked_is_not_begun_anew(yard: Yard) -> None:
    """Not even when somebody has connected to it meanwhile, which makes it again, empty: the commands are there, and
    would all be decided once more, or be parked as expired."""
    with yard.working():
        assert [yard.pay(nth).total for nth in (0, 0, 1)] == [1, 2, 1]
    yard.delete_partition(yard.events, 0)
    yard.open_log().reader(yard.events, 0, after=None).close()
    refused = refused_by_the_next(yard)
    assert "purse-events partition 0 has no commit, and commands were decided there" in refused
    assert [each.number for each in yard.commits()] == [1, 2]


def test_a_log_that_is_deleted_under_a_worker_is_not_begun_anew_by_the_next_one(yard: Yard) -> None:
    """The broker makes a partition again as soon as somebody connects to it; who knew its states goes on."""
    with yard.working():
        assert [yard.pay(nth).total for nth in (0, 0, 1)] == [1, 2, 1]
        yard.delete_partition(yard.events, 0)
        assert yard.pay(0).total == 3
    refused = refused_by_the_next(yard)
    assert "purse-events partition 0 begins with commit 3, and no checkpoint has what was before it" in refused


def test_a_number_of_partitions_that_was_changed_by_hand_is_found_and_refused_and_who_runs_goes_on(yard: Yard) -> None:
    with yard.working():
        yard.pay(0)
        yard.admin("POST", f"/persistent/public/{yard.commands}/partitions", 4)
        assert (yard.pay(1).total, yard.knock()) == (1, 1)
        with pytest.raises(SettingsError, match=r"purse-commands.*4 partitions"):
            provision(yard.pipeline, yard.open_log())
        found = [str(each) for each in yard.log.examine(wanted_topics(yard.pipeline))]
        assert any("purse-commands" in each and "partitions" in each for each in found), found


# --- other people -----------------------------------------------------------------------------------------------------


def test_a_partition_that_cannot_be_joined_keeps_no_worker_from_starting(yard: Yard) -> None:
    """Somebody has the workers' subscription there, for himself alone."""
    logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null")
    with closing(pulsar.Client(yard.broker.service_url, logger=logger)) as client:
        topic = f"persistent://public/{yard.commands}-partition-0"
        theirs = client.subscribe(topic, "magnetar", consumer_type=pulsar.ConsumerType.Exclusive)
        with structlog.testing.capture_logs() as logged, yard.working():
            assert (yard.pay(1).total, yard.knock()) == (1, 1)
            assert any(each["event"] == "partition cannot be joined" and each["partition"] == 0 for each in logged)
            theirs.close()
            assert yard.pay(0).total == 1


def test_a_producer_without_the_topics_schema_is_refused_by_the_broker(yard: Yard) -> None:
    with pytest.raises(pulsar.PulsarException), yard.foreign(yard.events, 0):
        pass


def test_junk_on_an_event_topic_refuses_its_partition_and_no_other(yard: Yard) -> None:
    with yard.working():
        yard.pay(0)
        yard.pay(1)
    schema = yard.pipeline.schemas["Purse"].commit_json
    with yard.foreign(yard.events, 0, schema=PassThrough(schema)) as producer:
        producer.send(b"junk", partition_key="x")
    with yard.working() as workers:
        with yard.client() as client:
            client.send(Purse, yard.ids[0], Pay(1), timeout_seconds=LONG)
        assert (yard.pay(1).total, yard.knock()) == (2, 1)
        eventually(lambda: 0 in workers["Purse"].refused, "the partition is refused", seconds=60)
        refused = workers["Purse"].refused[0]
    assert isinstance(refused, PartitionRefused)
    assert "is no commit" in refused.what
    assert "Somebody else wrote to the topic" in refused.cure


def test_a_command_whose_key_is_no_text_is_parked_and_the_rest_goes_on(yard: Yard) -> None:
    message = _pulsar.MessageBuilder().content(b"junk").partition_key(b"\xff").build()
    schema = PassThrough(yard.pipeline.schemas["Purse"].command_json)
    with yard.working():
        with yard.foreign(yard.commands, 0, schema=schema) as producer:
            producer._producer.send(message)  # the public ones make text of it
        assert yard.pay(0).total == 1
    assert [each.outcome for each in yard.commits()] == ["parked", "accepted"]


def test_commits_of_somebody_else_count_for_nobody(yard: Yard) -> None:
    """Under a number that would be next, with an owner that has claimed nothing."""
    with yard.working():
        yard.pay(0, 5)
    commit = next(m.payload for m, _ in log_of(yard.log, yard.events, 0))
    forged = write_long(2) + b"x" * 16 + commit[len(write_long(1)) + 16 :]
    schema = yard.pipeline.schemas["Purse"].commit_json
    with yard.foreign(yard.events, 0, schema=PassThrough(schema)) as producer:
        producer.send(forged, partition_key=yard.ids[0])
    with yard.working():
        assert yard.pay(0, 1).total == 6
    assert [each.number for each in yard.commits()] == [1, 2]


def test_poison_on_every_partition_is_parked_and_holds_nothing_up(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    yard = Yard(broker, open_log, partitions=8)
    publisher = yard.log.publisher(yard.commands, schema=yard.pipeline.schemas["Purse"].command_json)
    for partition in range(8):
        publisher.publish(partition, [Entry(yard.ids[partition], b"\xff" * 20)], timeout_seconds=LONG)
    with yard.working():
        assert [yard.pay(partition).total for partition in range(8)] == [1] * 8
    outcomes = [each.outcome for each in yard.commits()]
    assert (outcomes.count("parked"), outcomes.count("accepted")) == (8, 8)


def test_a_hot_key_is_decided_in_its_order_and_the_others_are_answered_meanwhile(yard: Yard) -> None:
    """Ten thousand commands of one aggregate, and asks of others: on another partition, and of another aggregate."""
    hot = 10_000
    with yard.client() as client, yard.working() as workers:
        for _ in client.send_many(Outgoing(Purse, yard.ids[0], Pay(20)) for _ in range(hot)):
            assert yard.pay(1).total > 0
            yard.knock()
        eventually(lambda: workers["Purse"].decided >= hot + 2, "all are decided")
    its = [each for each in yard.commits() if each.aggregate_id == yard.ids[0]]
    assert len(its) == hot
    version = 0
    for commit in its:
        assert commit.version == version
        version += len(commit.events)


def test_one_worker_takes_64_partitions(broker: Existing, open_log: Callable[..., PulsarLog]) -> None:
    yard = Yard(broker, open_log, partitions=64)
    with yard.client() as client:
        for id in yard.ids:
            client.send(Purse, id, Pay(1))
    with yard.working() as workers:
        eventually(lambda: workers["Purse"].decided == 64, "all are decided")
        assert workers["Purse"].owned == tuple(range(64))
        assert yard.pay(63).total == 2


def test_what_has_gone_to_another_worker_is_forgotten_though_no_command_comes(yard: Yard) -> None:
    with yard.working() as first:
        yard.pay(0)
        yard.pay(1)
        assert first["Purse"].owned == (0, 1)
        with yard.working():
            eventually(lambda: len(first["Purse"].owned) == 1, "the first one has forgotten the other's")


class Fined(Event):
    total: str


class Fine(Command):
    amount: int


class OtherPurse(Aggregate, wire_name="Purse"):
    total: int = 0

    def execute(self, command: Fine) -> Fined:
        return Fined(str(command.amount))

    def apply(self, event: Fined) -> Self:
        return self


def test_two_pipelines_that_claim_one_namespace_are_told_so_and_the_first_goes_on(yard: Yard) -> None:
    name = yard.pipeline.name
    with yard.working():
        yard.pay(0)
        for other, says in (
            (Pipeline(name, aggregates=[Purse], partitions=3), "2 partitions"),
            (Pipeline(name, aggregates=[OtherPurse], partitions=2), "is gone"),
        ):
            with pytest.raises(SettingsError, match=says):
                provision(other, yard.open_log())
        assert yard.pay(0).total == 2


# --- schemas, tenants, clocks -----------------------------------------------------------------------------------------


def test_a_schema_that_was_deleted_is_named_and_the_other_aggregates_go_on(yard: Yard) -> None:
    with yard.working():
        yard.pay(0)
    yard.admin("DELETE", f"/schemas/public/{yard.events}/schema")
    with structlog.testing.capture_logs() as logged, yard.working():
        with yard.client() as client:
            client.send(Purse, yard.ids[0], Pay(1))
        assert yard.knock() == 1
        says = "has no version 0 of the schema"
        eventually(lambda: any(says in each.get("detail", "") for each in logged), "the worker says so")
    found = [str(each) for each in yard.log.examine(wanted_topics(yard.pipeline))]
    assert any("deleted up to version" in each for each in found)


def test_a_schema_that_may_not_be_registered_costs_its_partitions_alone(yard: Yard) -> None:
    """Deleted under a worker, in a namespace whose schemas nobody may add to."""
    with structlog.testing.capture_logs() as logged, yard.working():
        yard.pay(0)
        yard.admin("POST", f"/namespaces/public/{yard.pipeline.name}/isAllowAutoUpdateSchema", False)
        yard.admin("DELETE", f"/schemas/public/{yard.events}/schema")
        with yard.client() as client:
            client.send(Purse, yard.ids[1], Pay(1))  # its partition is taken now
        assert yard.knock() == 1
        says = "the topic does not take this schema"
        eventually(lambda: any(says in each.get("detail", "") for each in logged), "the worker says so")
        assert yard.knock() == 2


def test_a_tenant_that_does_not_exist_is_named_to_a_client(yard: Yard) -> None:
    with yard.client(tenant="elsewhere") as client, pytest.raises(SettingsError, match="There is no tenant elsewhere"):
        client.ask(Purse, "a", Pay(1), timeout_seconds=LONG)


def reach(shell: Shell, broker: Existing, **settings: str) -> None:
    """Let the terminal's commands reach the broker."""
    shell.environment |= {"MAGNETAR_BROKER": broker.service_url, "MAGNETAR_BROKER_ADMIN": broker.admin_url, **settings}


ASK = ("ask", "crew", "Purse", "a", "Pay", '{"amount": 5}', "--timeout", str(LONG))


def test_a_namespace_that_does_not_exist_is_said_to_have_no_such_topic(shell: Shell, broker: Existing) -> None:
    reach(shell, broker)
    ran = shell.run(*ASK)
    assert ran.returncode == EXIT_WORLD
    assert "purse-commands: there is no such topic" in ran.stderr


def test_nobody_who_starts_makes_a_tenant_and_provision_does(shell: Shell, broker: Existing) -> None:
    tenant = f"t{uuid.uuid4().hex[:12]}"
    reach(shell, broker, MAGNETAR_TENANT=tenant)
    for role in ("worker", "projector"):
        ran = shell.run("run", "crew", "--role", role)
        assert ran.returncode == EXIT_YOURS
        assert f"There is no tenant {tenant} on this Pulsar" in ran.stderr
        assert "`magnetar provision MODULE`" in ran.stderr
    assert f"There is no tenant {tenant} on this Pulsar" in shell.run(*ASK).stderr
    assert f"+ tenant {tenant}" in shell.run("plan", "crew").stdout
    assert shell.run("provision", "crew").returncode == 0
    shell.start("run", "crew")
    assert shell.run(*ASK).returncode == 0


def test_a_clients_clock_that_is_an_hour_off_makes_no_second_decision(yard: Yard) -> None:
    with yard.working():
        with yard.client(LateClock(60)) as ahead, yard.client(LateClock(-60)) as behind:
            id = new_id(minutes_ago=-60)
            first = ahead.ask(Purse, "a", Pay(5), command_id=id, timeout_seconds=LONG)
            again = ahead.ask(Purse, "a", Pay(5), command_id=id, timeout_seconds=LONG)
            assert (again.outcome, again.version) == (first.outcome, first.version)
            with pytest.raises(CommandParked, match="expired"):
                behind.ask(Purse, "a", Pay(5), timeout_seconds=LONG)
        assert [each.outcome for each in yard.commits()] == ["accepted", "parked"]


@pytest.mark.parametrize("minutes", [60, -60])
def test_a_workers_clock_that_is_an_hour_off_makes_no_second_decision_and_is_in_no_commit(
    yard: Yard, minutes: float
) -> None:
    id = new_id()
    with yard.client() as client:
        receipts = []
        for clock in (LateClock(minutes), SystemClock()):  # one after the other
            with yard.working(clock):
                receipts += [client.ask(Purse, "a", Pay(5), command_id=id, timeout_seconds=LONG) for _ in range(2)]
    assert {(each.outcome, each.version) for each in receipts} == {(Paid(5, None, id), 1)}
    (commit,) = yard.commits()
    assert abs(commit.source.published_at_ms - SystemClock().now_ms()) < 30 * 60_000


def test_a_worker_whose_clock_is_off_is_warned_and_far_off_does_not_start(yard: Yard) -> None:
    def start(clock: Clock) -> None:
        log = PulsarLog(yard.broker.service_url, yard.broker.admin_url, clock=clock)
        with closing(log):
            preflight(yard.pipeline, log)

    with structlog.testing.capture_logs() as logged:
        start(SystemClock())
    assert not [each for each in logged if "clock" in each.get("what", "")]
    with structlog.testing.capture_logs() as logged:
        start(LateClock(1))
    assert [each["what"] for each in logged if re.search(r"clock is 6\d s behind this", each.get("what", ""))]
    for minutes, off in ((60, "behind"), (-60, "ahead of")):
        with pytest.raises(LogUnsafe, match=rf"clock is 3[56]\d\d s {off} this machine's"):
            start(LateClock(minutes))


# --- sizes ------------------------------------------------------------------------------------------------------------


class Shout(Command):
    text: str
    times: int


class Shouted(Event):
    text: str


class Echo(Aggregate):
    def execute(self, command: Shout) -> Shouted:
        return Shouted(command.text * command.times)

    def apply(self, event: Shouted) -> Self:
        return self


def test_a_decision_over_the_brokers_limit_is_parked_and_the_others_go_on(
    broker: Existing, open_log: Callable[..., PulsarLog]
) -> None:
    echoes = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Echo], partitions=1)
    provision(echoes, open_log())
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    with SyncClient(echoes, settings=settings) as client, working(echoes, open_log(), SystemClock()):
        sizes = (5_100, 5_300, 10)  # the broker takes 5,242 of these thousands in one message, with all that is around
        ids = [client.send(Echo, "a", Shout("x" * 1000, times)) for times in sizes]
        with pytest.raises(CommandParked, match="too_large"):
            client.ask(Echo, "a", Shout("x" * 1000, 5_300), command_id=ids[1], timeout_seconds=LONG)
        receipt = client.ask(Echo, "a", Shout("x" * 1000, 10), command_id=ids[2], timeout_seconds=LONG)
        assert (receipt.outcome, receipt.version) == (Shouted("x" * 10_000), 2)
