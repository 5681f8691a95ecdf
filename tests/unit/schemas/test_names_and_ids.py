"""Names, ids and routing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magnetar.schemas import (
    DeclarationError,
    Event,
    MessageId,
    Position,
    SettingsError,
    Topic,
    TopicKind,
    is_uuid7,
    made_at_ms,
    partition_of,
    uuid7,
    why_bad_aggregate_id,
    wire_name,
)
from magnetar.schemas.names import check_context, kebab


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_uuid7_tells_when_it_was_made(at_ms: int, randomness: int) -> None:
    id = uuid7(at_ms, randomness)
    assert is_uuid7(id)
    assert made_at_ms(id) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        uuid7(0xABCDEF, 1).upper(),
        uuid7(1, 1) + "0",
        "9aa69a93-3a2d-4281-9957-f030e84bffdf",
        uuid7(1, 1) + "\n",
    ],
)
def test_what_is_no_uuid7(text: str) -> None:
    assert not is_uuid7(text)


@pytest.mark.parametrize("id", ["", "x" * 513, "a\nb", "a\x00b", "é" * 257, "\u2028"])
def test_what_is_no_aggregate_id(id: str) -> None:
    assert why_bad_aggregate_id(id)


@pytest.mark.parametrize("id", ["1", "x" * 512, "é" * 256, "UA1545@2013-01-01T10:00Z", "a b/c'\"\\`;--"])
def test_what_is_an_aggregate_id(id: str) -> None:
    assert why_bad_aggregate_id(id) is None


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 1024))
def test_every_id_has_a_partition(id: str, partitions: int) -> None:
    assert 0 <= partition_of(id, partitions) < partitions


def test_positions_are_texts_that_can_be_taken_apart() -> None:
    position = Position.of("flights", "Flight", 3, 17)
    assert position == "flights/Flight/3/17"
    assert position.parts() == ("flights", "Flight", 3, 17)
    with pytest.raises(SettingsError, match="not a position"):
        Position("flights/Flight").parts()


def test_places_compare_in_the_order_of_the_partition() -> None:
    assert MessageId(1, 2, 3) < MessageId(1, 3, 0) < MessageId(2, 0, 0)


def test_topics_have_kebab_names() -> None:
    assert str(Topic("shop", "UserAccount", TopicKind.EVENTS)) == "shop/user-account-events"
    assert kebab("HTTPServer2") == "http-server2"


def test_a_renamed_class_keeps_its_wire_name() -> None:
    class Gone(Event, wire_name="Departed"):
        pass

    assert wire_name(Gone) == "Departed"


@pytest.mark.parametrize("name", ["_hidden", "a-b", "x" * 64, "ünï"])
def test_wire_names_that_cannot_stand_in_avro_are_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="cannot stand in Avro"):

        class Bad(Event, wire_name=name):
            pass


def test_a_field_that_begins_with_an_underscore_is_refused_naming_it() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\._x"):

        class Bad(Event):
            _x: int


@pytest.mark.parametrize("name", ["", "Flights", "system", "a-b", "1a", "default"])
def test_contexts_that_cannot_be_a_database_are_refused(name: str) -> None:
    with pytest.raises(DeclarationError):
        check_context(name)
