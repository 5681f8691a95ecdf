"""The token on its way to a Pulsar."""

import base64
import json
import os
import time
from pathlib import Path

import pytest
from magnetar.pipelines.logs.pulsar_access import Access, Token, is_encrypted
from magnetar.schemas import SettingsError


def token(**claims: object) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, b"signature"])


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    found = Token(file=file)
    assert found.read() == "first"
    file.write_text("")
    os.utime(file, ns=(1, 1))
    assert found.read() == "first", "an empty file is one that is being written"
    file.write_text("second")
    os.utime(file, ns=(2, 2))
    assert found.read() == "second"
    file.unlink()
    with pytest.raises(SettingsError, match="MAGNETAR_TOKEN_FILE"):
        found.read()
    assert found.read_or_last() == "second", "on the client's threads nothing may raise"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (token(sub="w", exp=1_000_000_000), "expired at 2001-09-09 01:46:40 UTC"),
        (token(sub="w", exp=time.time() + 3600), "damaged, or signed by another"),
        (token(sub="w"), "damaged, or signed by another"),
        ("nonsense", "damaged, or signed by another"),
        ("a.b.c", "damaged, or signed by another"),
    ],
    ids=["expired", "signed by another", "of no end", "no token", "no JSON"],  # not the tokens: one has the time in it
)
def test_what_is_wrong_with_a_token_is_said_without_showing_it(text: str, words: str) -> None:
    access = Access(token=Token(text=text))
    what, cure = access.why_refused()
    assert words in what
    assert text not in f"{what} {cure} {access!r} {access.token!r}"


@pytest.mark.parametrize("wrapped", ["{0}\n{1}", "{0} {1}", "Bearer {0}{1}", "token:{0}{1}", "{0}{1}\u00e9"])
def test_what_is_no_token_is_refused_without_showing_it(tmp_path: Path, wrapped: str) -> None:
    """The HTTP library would say which header is illegal, with the token in it."""
    valid = token(sub="w")
    file = tmp_path / "token"
    file.write_text(wrapped.format(valid[:20], valid[20:]))
    for found in (Token(file=file), Token(text=file.read_text())):
        with pytest.raises(SettingsError, match="has no token: it has a line break, a space or another") as refused:
            found.read()
        assert valid[20:] not in f"{refused.value} {refused.value.cure} {refused.value.fields}"
    file.write_text(valid + "\n")
    renewed = Token(file=file)
    assert renewed.read() == valid
    file.write_text(f"{valid}\n{valid}")
    os.utime(file, ns=(1, 1))
    assert renewed.read_or_last() == valid, "who runs with the last one goes on with it"


def test_an_empty_token_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    for found in (Token(file=tmp_path / "token"), Token(text="")):
        with pytest.raises(SettingsError, match=r"MAGNETAR_TOKEN.* is empty"):
            found.read()


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a host's name\n")
    with pytest.raises(SettingsError, match=r"MAGNETAR_TLS_CA names .*ca.pem, which has no certificate"):
        Access(tls_ca=tmp_path / "ca.pem")


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MAGNETAR_TLS_CA"):
        Access(tls_ca=tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (("pulsar+ssl://a:1", "https://a:2"), True),
        (("pulsar+ssl://a:1", "http://a:2"), False),
        (("pulsar://a:1", "https://a:2"), False),
        (("pulsar://127.0.0.1:1", "http://localhost:2"), True),
    ],
)
def test_what_leaves_the_machine_in_the_clear_is_known(urls: tuple[str, str], expected: bool) -> None:
    assert is_encrypted(*urls) is expected
