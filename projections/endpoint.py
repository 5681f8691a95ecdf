"""Where a ClickHouse answers over HTTP: one of your own, or the endpoint of a process that has the engine open."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

ANSWER_SECONDS: Final = 300.0
"""How long a ClickHouse may take for one statement before it is taken for gone."""

_PORTS: Final = {"http": 8123, "https": 8443}


@dataclass(frozen=True)
class Endpoint:
    """An address, and who asks there."""

    url: str
    token: str = field(repr=False)
    """The password."""
    pid: int = 0
    """The process that has the engine open; 0 for a server."""
    user: str = "default"
    ca: Path | None = None
    """A PEM file with the authority that signed its certificate; else those that the system trusts."""
    cluster: str = ""
    """The cluster that a server is of, over which the tables are replicated; empty for a server alone."""

    @property
    def is_server(self) -> bool:
        """Whether it is a ClickHouse of its own."""
        return self.pid == 0

    @property
    def host(self) -> str:
        """The host in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port in the URL, or ClickHouse's own for its scheme."""
        found = urlsplit(self.url)
        return found.port or (_PORTS[found.scheme] if self.is_server else 80)

    @property
    def client_options(self) -> dict[str, Any]:
        """How `clickhouse-connect` opens a client for it: without a session, since calls with one would wait for each
        other, and one that has run out of time would keep its session locked."""
        return {
            "host": self.host,
            "port": self.port,
            "username": self.user,
            "password": self.token,
            "secure": self.url.startswith("https:"),
            "ca_cert": None if self.ca is None else str(self.ca),
            "autogenerate_session_id": False,
            "query_retries": 0,
            "connect_timeout": 5,
            "send_receive_timeout": ANSWER_SECONDS,
        }

    @property
    def verifying(self) -> ssl.SSLContext | bool:
        """What certificates are verified with."""
        return True if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
