"""Settings from the environment, and the log and the store that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from magnetar.schemas import SettingsError
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from magnetar.projections.endpoint import Endpoint

    from .clock import Clock
    from .log import Log

EMBEDDED = "embedded"


_NEARLY: Final = 0.9
"""How like a setting's name another one is to be taken for it, as `difflib` counts."""


class Settings(BaseSettings):
    """What can be set from outside; each setting `x` is the environment variable `MAGNETAR_X`."""

    model_config = SettingsConfigDict(env_prefix="MAGNETAR_", extra="ignore")

    data: Path = Path(".magnetar")
    """The data folder of the embedded log and store."""
    broker: str = EMBEDDED
    """`embedded`, or the service URL of an Apache Pulsar: `pulsar://host:6650`."""
    broker_admin: str = "http://127.0.0.1:8080"
    """The admin URL of that Pulsar."""
    broker_wait_seconds: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    """How long a worker or projector that starts waits for a broker, or a ClickHouse server, that does not answer,
    before it gives up."""
    tenant: str = Field(default="public", pattern=r"^[-=:.\w]+$")
    """The Pulsar tenant whose namespaces the contexts are."""
    clickhouse: str = EMBEDDED
    """`embedded`, or the URL of a ClickHouse server: `https://host:8443`."""
    clickhouse_user: str = "default"
    """Who we are on that server."""
    clickhouse_password: SecretStr | None = None
    """That user's password. Better in a file."""
    clickhouse_password_file: Path | None = None
    """A file with that password, read at the start."""
    clickhouse_ca: Path | None = None
    """A PEM file with the authority that signed that server's certificate; else those that the system trusts."""
    clickhouse_cluster: str = Field(default="", pattern=r"^([A-Za-z_]\w{0,62})?$")
    """The cluster that server is of, as its `remote_servers` call it: tables are made on all of its servers and
    replicated. Generated, and not tested on a cluster."""
    query_port: int = Field(default=0, ge=0, le=65535)
    """The port of the embedded engine's endpoint on 127.0.0.1; 0 is one that the system chooses."""
    query_seconds_max: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """How long a query through the endpoint may take."""
    query_memory_bytes_max: int = Field(default=0, ge=0)
    """How much memory a query through the endpoint may take; 0 is an eighth of the machine's or the container's."""
    decoding: Literal["tried", "engine", "python"] = "tried"
    """Who decodes the commits for tables that ClickHouse fills from them: `engine` is ClickHouse, `python` the
    projector; with `tried` it is ClickHouse if it reads made-up commits of the same schema as they were written."""
    quarantine_keys_max: int = Field(default=100, ge=0)
    """So many keys of a projection's table are kept back when it raises on an event, while the others go on; one more
    stops the partition, and with 0 the first one does."""
    health_port: int | None = None
    """The port on which `run` answers /healthz, /readyz and /metrics; 0 is one that the system chooses, none is not at
    all."""
    health_host: str = "127.0.0.1"
    """The address of that port. Whoever reaches it can read the figures, so another one is a decision of yours."""
    token: SecretStr | None = None
    """The JSON web token that says who we are on that Pulsar. Better in a file."""
    token_file: Path | None = None
    """A file with that token, read again when it has changed."""
    tls_ca: Path | None = None
    """A PEM file with the authority that signed that Pulsar's certificates; else those that the system trusts."""
    tls_validate_hostname: bool = True
    """Whether the certificates must be for the hosts that were asked for."""
    worker_role: str = ""
    """Who the workers are on that Pulsar, for provisioning to give rights to; may hold {context} and {aggregate}."""
    projector_role: str = ""
    """Who the projectors are."""
    client_role: str = ""
    """Who the clients are."""

    def server(self) -> Endpoint | None:
        """The ClickHouse server, None where the engine is embedded. Raises SettingsError for an unreadable password."""
        if self.clickhouse == EMBEDDED:
            return None
        from magnetar.projections.endpoint import Endpoint

        return Endpoint(
            self.clickhouse,
            self._password(),
            user=self.clickhouse_user,
            ca=self.clickhouse_ca,
            cluster=self.clickhouse_cluster,
        )

    def _password(self) -> str:
        if self.clickhouse_password_file is None:
            return "" if self.clickhouse_password is None else self.clickhouse_password.get_secret_value()
        try:
            return self.clickhouse_password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"MAGNETAR_CLICKHOUSE_PASSWORD_FILE cannot be read: {error}.", cure="Correct it or unset it."
            ) from error


def load_settings(*, data: Path | None = None, broker: str | None = None) -> Settings:
    """Read the settings; arguments that are given win over the environment. Raises SettingsError naming a wrong one."""
    given: dict[str, object] = {}
    if data is not None:
        given["data"] = data
    if broker is not None:
        given["broker"] = broker
    _refuse_misspelled(os.environ)
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"MAGNETAR_{'_'.join(str(part) for part in first['loc']).upper()}"
        raise SettingsError(f"{name} is not usable: {first['msg']}.", cure="Correct it or unset it.") from error
    for name, address in (("MAGNETAR_BROKER", settings.broker), ("MAGNETAR_BROKER_ADMIN", settings.broker_admin)):
        if "@" in address:  # not shown: there may be a password before it
            raise SettingsError(
                f"{name} has a user or a password in it.", cure="Take it out: MAGNETAR_TOKEN_FILE says who we are."
            )
    if settings.broker != EMBEDDED and not settings.broker.startswith(("pulsar://", "pulsar+ssl://")):
        raise SettingsError(
            f"MAGNETAR_BROKER is {settings.broker!r}.", cure="Use `embedded`, or pulsar://host:6650 for a Pulsar."
        )
    if settings.token is not None and settings.token_file is not None:
        raise SettingsError("Both MAGNETAR_TOKEN and MAGNETAR_TOKEN_FILE are set.", cure="Unset one of them.")
    _check_server(settings)
    return settings


def _refuse_misspelled(names: Iterable[str]) -> None:
    """A setting that is nearly the name of one was meant to be it."""
    known = [f"MAGNETAR_{field.upper()}" for field in Settings.model_fields]
    for name in sorted(names):
        if not name.startswith("MAGNETAR_") or name in known:
            continue
        if meant := get_close_matches(name, known, n=1, cutoff=_NEARLY):
            raise SettingsError(f"There is no setting {name}.", cure=f"Do you mean {meant[0]}? Otherwise unset it.")


def _check_server(settings: Settings) -> None:
    if settings.clickhouse == EMBEDDED and settings.clickhouse_cluster:
        raise SettingsError(
            f"MAGNETAR_CLICKHOUSE_CLUSTER is {settings.clickhouse_cluster!r}, and "
            "the tables are in the embedded engine, which is of no cluster.",
            cure="Set MAGNETAR_CLICKHOUSE to one of the cluster's servers, or unset it.",
        )
    if settings.clickhouse == EMBEDDED:
        return
    if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?/?", settings.clickhouse, re.ASCII):
        raise SettingsError(
            "MAGNETAR_CLICKHOUSE is no address of a ClickHouse server.",  # it may have a password in it
            cure="Use `embedded`, or https://host:8443 with the user and the password in settings of their own.",
        )
    if settings.clickhouse_password is not None and settings.clickhouse_password_file is not None:
        raise SettingsError(
            "Both MAGNETAR_CLICKHOUSE_PASSWORD and MAGNETAR_CLICKHOUSE_PASSWORD_FILE are set.", cure="Unset one."
        )
    if settings.clickhouse_ca is not None and not settings.clickhouse_ca.is_file():
        raise SettingsError(
            f"MAGNETAR_CLICKHOUSE_CA names {settings.clickhouse_ca}, which is no file.", cure="Correct it or unset it."
        )


def open_log(settings: Settings, clock: Clock, *, make: bool = True) -> Log:
    """Open the log that the settings name; make the embedded one's folder if it is not there and `make` says so.

    Raises DataFolderError, LogUnavailable or AccessDenied.
    """
    if settings.broker == EMBEDDED:
        from .logs.sqlite import SqliteLog

        return SqliteLog(settings.data, clock, make=make)
    from .logs.pulsar import PulsarLog
    from .logs.pulsar_access import Access, Token

    secret = None if settings.token is None else settings.token.get_secret_value()
    token = Token(text=secret, file=settings.token_file) if secret or settings.token_file else None
    access = Access(token=token, tls_ca=settings.tls_ca, tls_validate_hostname=settings.tls_validate_hostname)
    return PulsarLog(settings.broker, settings.broker_admin, tenant=settings.tenant, clock=clock, access=access)
