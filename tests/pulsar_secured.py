"""A real Pulsar that wants tokens and speaks TLS, with an authority of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import time
from pathlib import Path

import httpx

from tests.pulsar_rig import Existing, Standalone, free_ports, require

ADMIN = "admin"


class Authority:
    """Signs the certificate of one server, which is for `localhost` and not for 127.0.0.1."""

    def __init__(self, folder: Path, host: str = "localhost") -> None:
        require("openssl")
        folder.mkdir()
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        self.server_certificate, self.server_key = folder / "server.pem", folder / "server.key"
        request, extensions = folder / "server.csr", folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{host}\n")
        signing = f"-CA {self.certificate} -CAkey {self._key} -CAcreateserial -extfile {extensions}"
        for command in (
            f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=us -keyout {self._key} -out {self.certificate}",
            f"req -newkey rsa:2048 -nodes -subj /CN={host} -keyout {self.server_key} -out {request}",
            f"x509 -req -days 2 -in {request} {signing} -out {self.server_certificate}",
        ):
            subprocess.run(["openssl", *command.split()], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Secured(Standalone):
    """One Pulsar that takes nobody without a token; `service_url` and `admin_url` are those with TLS."""

    def __init__(self, folder: Path) -> None:
        self._secret = hashlib.sha256(str(folder).encode()).digest()
        self.authority = Authority(folder / "tls")
        port, web = free_ports(2)
        super().__init__(
            folder,
            {
                "authenticationEnabled": "true",
                "authorizationEnabled": "true",
                "authenticationProviders": "org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
                "authenticationRefreshCheckSeconds": "2",
                "tokenSecretKey": f"data:;base64,{base64.b64encode(self._secret).decode()}",
                "superUserRoles": ADMIN,
                "brokerClientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.AuthenticationToken",
                "brokerClientAuthenticationParameters": f"token:{self.token(ADMIN)}",
                "brokerServicePortTls": str(port),
                "webServicePortTls": str(web),
                "tlsCertificateFilePath": str(self.authority.server_certificate),
                "tlsKeyFilePath": str(self.authority.server_key),
                "tlsTrustCertsFilePath": str(self.authority.certificate),
                "brokerClientTrustCertsFilePath": str(self.authority.certificate),
            },
        )
        self.plain = Existing(self.service_url, self.admin_url)
        self.service_url, self.admin_url = f"pulsar+ssl://localhost:{port}", f"https://localhost:{web}"

    def token(self, role: str, *, seconds: float | None = None) -> str:
        """A token of a role, which expires after so many seconds."""
        claims = {"sub": role} if seconds is None else {"sub": role, "exp": int(time.time() + seconds)}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return b".".join((signed, _encoded(hmac.digest(self._secret, signed, "sha256")))).decode()

    def _get(self, url: str) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        return httpx.get(url, timeout=5, verify=context, headers={"Authorization": f"Bearer {self.token(ADMIN)}"})


def _encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
