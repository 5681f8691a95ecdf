"""Settings from the environment, and the log and the store that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magnetar.schemas import SettingsError
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from .clock import Clock
    from .log import Log

EMBEDDED = "embedded"


class Settings(BaseSettings):
    """What can be set from outside; each setting `x` is the environment variable `MAGNETAR_X`."""

    model_config = SettingsConfigDict(env_prefix="MAGNETAR_", extra="ignore")

    data: Path = Path(".magnetar")
    """The data folder of the embedded log and store."""
    broker: str = EMBEDDED
    """`embedded`, or the service URL of an Apache Pulsar: `pulsar://host:6650`."""
    broker_admin: str = "http://127.0.0.1:8080"
    """The admin URL of that Pulsar."""
    tenant: str = "public"
    """The Pulsar tenant whose namespaces the contexts are."""
    query_port: int = 0
    """The port of the embedded engine's endpoint on 127.0.0.1; 0 is one that the system chooses."""
    query_seconds_max: float = 60.0
    """How long a query through the endpoint may take."""
    query_memory_bytes_max: int = 0
    """How much memory a query through the endpoint may take; 0 is an eighth of the machine's."""


def load_settings(*, data: Path | None = None, broker: str | None = None) -> Settings:
    """Read the settings; arguments that are given win over the environment. Raises SettingsError naming a wrong one."""
    given: dict[str, object] = {}
    if data is not None:
        given["data"] = data
    if broker is not None:
        given["broker"] = broker
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"MAGNETAR_{'_'.join(str(part) for part in first['loc']).upper()}"
        raise SettingsError(f"{name} is not usable: {first['msg']}.", cure="Correct it or unset it.") from error
    if settings.broker != EMBEDDED and not settings.broker.startswith(("pulsar://", "pulsar+ssl://")):
        raise SettingsError(
            f"MAGNETAR_BROKER is {settings.broker!r}.", cure="Use `embedded`, or pulsar://host:6650 for a Pulsar."
        )
    return settings


def open_log(settings: Settings, clock: Clock) -> Log:
    """Open the log that the settings name. Raises DataFolderError or LogUnavailable."""
    if settings.broker == EMBEDDED:
        from .logs.sqlite import SqliteLog

        return SqliteLog(settings.data, clock)
    from .logs.pulsar import PulsarLog

    return PulsarLog(settings.broker, settings.broker_admin, tenant=settings.tenant, clock=clock)
