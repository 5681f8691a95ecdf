"""Where the benchmarks' logs are: in a folder, or on a Pulsar, which is the environment's or one of their own."""

import os
import secrets
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Log, Message
from magnetar.pipelines.provisioning import Planned, apply
from magnetar.pipelines.settings import EMBEDDED, Settings, load_settings, open_log
from magnetar.schemas import Topic

BROKERS: Final = (EMBEDDED, "pulsar")
SILENCE_SECONDS: Final = 30.0
"""How long a log may give nothing of what it has."""


@contextmanager
def running(kind: str) -> Generator[Settings]:
    """The settings of a broker of this kind.

    On `pulsar` that of MAGNETAR_BROKER, if it is one; else one is fetched with Maven, and runs while the block does.
    """
    if kind == EMBEDDED:
        yield Settings(broker=EMBEDDED)
        return
    settings = load_settings()
    if settings.broker != EMBEDDED:
        yield settings
        return
    from tests.pulsar_rig import Standalone, data_folder

    with data_folder() as folder:
        standalone = Standalone(folder)
        try:
            standalone.start()
            yield Settings(broker=standalone.service_url, broker_admin=standalone.admin_url)
        finally:
            standalone.stop()


@contextmanager
def fresh(broker: Settings) -> Generator[Settings]:
    """The settings of a log in which nothing is: a folder of its own, and a tenant, which stays on that Pulsar."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        tenant = broker.tenant if broker.broker == EMBEDDED else f"bench-{secrets.token_hex(4)}"
        settings = broker.model_copy(update={"data": data, "tenant": tenant})
        if broker.broker != EMBEDDED:
            _make_tenant(settings)
        yield settings


def _make_tenant(settings: Settings) -> None:
    with closing(open_log(settings, SystemClock())) as log:
        if isinstance(log, Planned):
            apply(log.plan([], {}))


def environment(settings: Settings) -> dict[str, str]:
    """What tells another process of the same log and the same tables."""
    named = {"BROKER": settings.broker, "BROKER_ADMIN": settings.broker_admin, "TENANT": settings.tenant}
    if (server := settings.server()) is not None:
        named |= {"CLICKHOUSE": server.url, "CLICKHOUSE_USER": server.user, "CLICKHOUSE_PASSWORD": server.token}
    return {**os.environ, **{f"MAGNETAR_{name}": value for name, value in named.items()}}


def stored(log: Log, topic: Topic, partition: int, messages_max: int = 5000) -> Iterator[Sequence[Message]]:
    """All messages of a partition."""
    end = log.end(topic, partition)
    if end is None:
        return
    reader = log.reader(topic, partition, after=None)
    try:
        last = None
        while last is None or last < end:
            messages = reader.read(messages_max=messages_max, timeout_seconds=SILENCE_SECONDS)
            if not messages:
                raise AssertionError(f"{topic} partition {partition} gives nothing before its end")
            last = messages[-1].id
            yield messages
    finally:
        reader.close()
