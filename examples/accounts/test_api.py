"""The API over a running pipeline: a log, a worker and ClickHouse in a temporary folder, all in this process."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from magnetar.testing import Embedded

from .api import app
from .pipeline import accounts

MADE_IN_2025 = "0197b1a0-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def running() -> Iterator[Embedded]:
    with accounts.embedded() as running:
        yield running


@pytest.fixture(scope="module")
def http(running: Embedded) -> Iterator[TestClient]:
    with TestClient(app) as http:
        yield http


@pytest.fixture
def anna() -> str:
    """A user of each test's own."""
    return f"anna-{uuid4()}"


def test_a_changed_name_is_in_the_log_and_in_the_table(http: TestClient, running: Embedded, anna: str) -> None:
    answer = http.put(f"/users/{anna}/name", json={"name": "Anna"}, headers={"X-Actor": anna})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    http.put(f"/users/{anna}/name", json={"name": "Annika"}, headers={"X-Actor": anna})
    rows = running.query(f"SELECT name FROM accounts.names WHERE user = '{anna}'")
    assert rows == [{"name": "Annika"}]


def test_a_changed_email_is_a_success(http: TestClient, anna: str) -> None:
    answer = http.put(f"/users/{anna}/email", json={"email": "a@example.org"}, headers={"X-Actor": anna})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "code", "detail"),
    [
        ("name", {"name": ""}, 422, "A name cannot be empty."),
        ("name", {"name": "Ann"}, 422, "A name has 4 to 8 characters."),
        ("name", {"name": "Annemarie"}, 422, "A name has 4 to 8 characters."),
        ("email", {"email": ""}, 422, "An e-mail address cannot be empty."),
    ],
)
def test_each_rejection_has_its_status(
    http: TestClient, anna: str, path: str, body: dict[str, str], code: int, detail: str
) -> None:
    answer = http.put(f"/users/{anna}/{path}", json=body, headers={"X-Actor": anna})
    assert (answer.status_code, answer.json()["detail"]) == (code, detail)


def test_nobody_changes_another_users_name(http: TestClient, anna: str) -> None:
    answer = http.put(f"/users/{anna}/name", json={"name": "Bert"}, headers={"X-Actor": "bert"})
    assert answer.status_code == 403


def test_a_rejection_is_in_the_log_too(http: TestClient, running: Embedded, anna: str) -> None:
    http.put(f"/users/{anna}/name", json={"name": "Bert"}, headers={"X-Actor": "bert"})
    rows = running.query(f"SELECT rejection, _actor FROM accounts.rejections WHERE _id = '{anna}'")
    assert rows == [{"rejection": "NotAllowed", "_actor": "bert"}]


def test_who_thinks_of_another_version_is_told_of_the_conflict(http: TestClient, anna: str) -> None:
    headers = {"X-Actor": anna, "If-Match": "7"}
    answer = http.put(f"/users/{anna}/name", json={"name": "Anna"}, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (409, "version_conflict")


def test_an_id_that_is_too_old_to_be_repeated_safely_is_refused(http: TestClient, anna: str) -> None:
    headers = {"X-Actor": anna, "Idempotency-Key": MADE_IN_2025}
    answer = http.put(f"/users/{anna}/name", json={"name": "Anna"}, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (422, "expired")


def test_what_cannot_be_sent_is_refused_at_once(http: TestClient, anna: str) -> None:
    headers = {"X-Actor": anna, "Idempotency-Key": "twice"}
    answer = http.put(f"/users/{anna}/name", json={"name": "Anna"}, headers=headers)
    assert (answer.status_code, "not a UUID version 7" in answer.json()["detail"]) == (422, True)
