"""Who we are on a Pulsar, and how we know that it is the right one: tokens and TLS. Secrets stay in here."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pulsar
from magnetar.schemas import SettingsError

_LETTERS: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""What a token in an HTTP header may be made of (RFC 6750, 2.1)."""


class Token:
    """A JSON web token, from the environment or from a file that is read again when it has changed."""

    def __init__(self, *, text: str | None = None, file: Path | None = None) -> None:
        self._text = (text or "").strip()
        self._file = file
        self._stamp: tuple[int, int] | None = None

    @property
    def is_in_file(self) -> bool:
        """Whether it may be renewed while somebody runs with it."""
        return self._file is not None

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return f"MAGNETAR_TOKEN_FILE ({self._file})" if self.is_in_file else "MAGNETAR_TOKEN"

    def read(self) -> str:
        """The token as it is now. Raises SettingsError for a file that cannot be read, and for what is no token."""
        text, stamp = self._text, self._stamp
        if self._file is not None:
            try:
                found = self._file.stat()
                now = (found.st_mtime_ns, found.st_ino)
                if now != stamp and (written := self._file.read_text().strip()):  # empty: it is being written
                    text, stamp = written, now
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(
                    f"The token cannot be read from {self.origin}: {type(error).__name__}.",
                    cure="Check that the file is there, and that this user may read it.",
                ) from error
        self._check(text)
        self._text, self._stamp = text, stamp
        return text

    def _check(self, text: str) -> None:
        """Raise SettingsError for what no HTTP header could have, which its library would say with the token in it."""
        if not text:
            raise SettingsError(f"{self.origin} is empty.", cure="Put the token there.")
        if not _LETTERS.fullmatch(text):
            raise SettingsError(
                f"{self.origin} has no token: it has a line break, a space or another character that no token has.",
                cure="Put the token there alone, in one line, without `Bearer` or `token:` before it.",
            )

    def read_or_last(self) -> str:
        """The same for who runs already: the last one known, while the file is being replaced, or is none any more."""
        with contextlib.suppress(SettingsError):
            return self.read()
        return self._text

    def expired_at(self) -> datetime | None:
        """When it expired, if it says so; the signature is the broker's to check."""
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, OverflowError):
            body = self.read().split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            expires = datetime.fromtimestamp(claims["exp"], UTC)
            if expires < datetime.now(UTC):
                return expires
        return None


class Access:
    """A token, the authority that signed the cluster's certificates, and whether host names are checked."""

    def __init__(
        self, *, token: Token | None = None, tls_ca: Path | None = None, tls_validate_hostname: bool = True
    ) -> None:
        if tls_ca is not None and not tls_ca.is_file():
            raise SettingsError(f"MAGNETAR_TLS_CA names {tls_ca}, which is no file.", cure="Name the authority's PEM.")
        self.token = token
        self._tls_ca = tls_ca
        self._tls_validate_hostname = tls_validate_hostname
        try:
            self.tls = ssl.create_default_context(cafile=None if tls_ca is None else str(tls_ca))
        except OSError as error:  # SSLError is one
            raise SettingsError(
                f"MAGNETAR_TLS_CA names {tls_ca}, which has no certificate: {error.strerror or error}.",
                cure="Name the authority's PEM.",
            ) from error
        self.tls.check_hostname = tls_validate_hostname

    def client_options(self) -> dict[str, Any]:
        """What Pulsar's client is opened with. It asks for the token whenever the broker does."""
        options: dict[str, Any] = {"tls_validate_hostname": self._tls_validate_hostname}
        if self._tls_ca is not None:
            options["tls_trust_certs_file_path"] = str(self._tls_ca)
        if self.token is not None:
            options["authentication"] = pulsar.AuthenticationToken(self.token.read_or_last)
        return options

    def admin_options(self) -> dict[str, Any]:
        """What the HTTP client of the admin API is opened with."""
        return {"verify": self.tls, "auth": None if self.token is None else _Bearer(self.token)}

    @property
    def has_expired(self) -> bool:
        """Whether there is a token that nobody takes any more."""
        return self.token is not None and self.token.expired_at() is not None

    def why_refused(self) -> tuple[str, str]:
        """What is wrong with the token that the broker did not take, and the cure."""
        if self.token is None:
            return "Pulsar wants a token, and none is set.", "Set MAGNETAR_TOKEN_FILE (or MAGNETAR_TOKEN)."
        read_again = "the file is read again by itself" if self.token.is_in_file else "processes read it at their start"
        renew = f"Get a new one from whoever runs the cluster; {read_again}."
        if (at := self.token.expired_at()) is not None:
            return f"The token from {self.token.origin} expired at {at:%Y-%m-%d %H:%M:%S} UTC.", renew
        return f"Pulsar does not take the token from {self.token.origin}: it is damaged, or signed by another.", renew


class _Bearer(httpx.Auth):
    def __init__(self, token: Token) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.read_or_last() or self._token.read()}"
        yield request


def is_encrypted(*urls: str) -> bool:
    """Whether what goes to all of these is encrypted, or does not leave this machine."""
    schemes = ("pulsar+ssl", "https")
    hosts = ("127.0.0.1", "::1", "localhost")
    parsed = [urlsplit(url) for url in urls]
    return all(url.scheme in schemes or url.hostname in hosts for url in parsed)
