"""Whether a broker answers at the service URL: all else that is planned and examined goes to the admin API."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pulsar
from magnetar.schemas import LogUnavailable, SettingsError

CONNECT_SECONDS_MAX: Final = 5.0
ANSWER_SECONDS_MAX: Final = 5
"""Who answers does so at once. Pulsar's client tries again, and says no more than that it was in vain."""

_ENCRYPTED: Final = "pulsar+ssl://"


def check_answers(
    service_url: str, topic: str | None, client_options: dict[str, Any], tls: ssl.SSLContext | None = None
) -> None:
    """Raise LogUnavailable unless a broker answers there about the topic, which must exist: to ask could make it.

    Without a topic, it is enough that somebody listens. Raises SettingsError as `check_listens` does.
    """
    check_listens(service_url, tls)
    if topic is None:
        return
    client = pulsar.Client(
        service_url,
        operation_timeout_seconds=ANSWER_SECONDS_MAX,
        logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
        **client_options,
    )
    try:
        client.get_topic_partitions(f"persistent://{topic}")
    except (pulsar.AuthorizationError, pulsar.TopicNotFound):
        pass  # it is a broker that says so
    except pulsar.PulsarException as error:
        raise _unavailable(service_url, type(error).__name__) from error
    finally:
        client.close()


def check_listens(service_url: str, tls: ssl.SSLContext | None = None) -> None:
    """Raise LogUnavailable if nobody listens there. One of several addresses is enough, as for Pulsar's client.

    Raises SettingsError for a certificate that is not taken: the client would only time out.
    """
    refusals, distrusted = [], None
    for host, port in _addresses(service_url):
        try:
            _connect(host, port, tls if service_url.startswith(_ENCRYPTED) else None)
        except OSError as error:
            refusals.append(f"{host}:{port}: {error.strerror or error}")
            if isinstance(error, ssl.SSLCertVerificationError):
                distrusted = error
        else:
            return
    if distrusted is not None:
        raise SettingsError(
            f"The certificate of the broker at {service_url} is not taken: {distrusted.verify_message.rstrip('.')}.",
            cure="Check MAGNETAR_TLS_CA, and the host name in MAGNETAR_BROKER.",
        ) from distrusted
    raise _unavailable(service_url, "; ".join(refusals))


def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> None:
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS_MAX) as connection:
        if tls is not None:
            tls.wrap_socket(connection, server_hostname=host).close()


def _addresses(service_url: str) -> Iterator[tuple[str, int]]:
    port = 6651 if service_url.startswith(_ENCRYPTED) else 6650
    for address in service_url.partition("://")[2].rstrip("/").split(","):
        try:
            split = urlsplit(f"//{address}")
            yield split.hostname or "", split.port or port
        except ValueError as error:
            raise _unavailable(service_url, str(error)) from error


def _unavailable(service_url: str, why: str) -> LogUnavailable:
    return LogUnavailable(
        f"No broker answers at {service_url}, though the admin API answers: {why}.",
        cure="Correct MAGNETAR_BROKER: the service URL, as pulsar://host:6650 or pulsar+ssl://host:6651. Or the broker "
        "is just starting.",
    )
