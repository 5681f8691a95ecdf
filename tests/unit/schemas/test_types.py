"""Every type that a message may have, over generated classes: Avro, fastavro and the `avro` package agree."""

import io
import json
import warnings
from typing import Any
from uuid import UUID

import avro.io
import avro.schema
import fastavro
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from magnetar.schemas.derivation import RecordCodec
from magnetar.schemas.derive import record_of

from tests.unit.schemas.classes import EVENTS, Typed

GENERATED = settings(
    max_examples=100, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking a class takes minutes


def raw(value: Any) -> Any:
    """What two readers must agree on: `avro` gives a UUID where `fastavro` does, or its text."""
    if isinstance(value, dict):
        return {key: raw(part) for key, part in value.items()}
    if isinstance(value, list):
        return [raw(part) for part in value]
    return str(value) if isinstance(value, UUID) else value


@given(EVENTS, st.data())
@GENERATED
def test_a_value_comes_back_as_it_was_written(typed: Typed, data: st.DataObject) -> None:
    value = data.draw(typed.values)
    schema = record_of(typed.annotation).avro("shop.cart.event")
    codec = RecordCodec(typed.annotation, schema)
    payload = codec.encode(value)
    stream = io.BytesIO(payload + b"rest")
    read = codec.decode(stream)
    assert read == value
    assert repr(type(read)) == repr(type(value))
    assert stream.tell() == len(payload)


@given(EVENTS, st.data())
@GENERATED
def test_the_bytes_are_those_that_fastavro_writes_and_avro_reads(typed: Typed, data: st.DataObject) -> None:
    value = data.draw(typed.values)
    schema = record_of(typed.annotation).avro("shop.cart.event")
    payload = RecordCodec(typed.annotation, schema).encode(value)
    parsed = fastavro.parse_schema(schema)
    read = fastavro.schemaless_reader(io.BytesIO(payload), parsed, None)
    again = io.BytesIO()
    fastavro.schemaless_writer(again, parsed, read)
    assert again.getvalue() == payload
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = avro.schema.parse(json.dumps(schema))
    assert raw(avro.io.DatumReader(theirs).read(avro.io.BinaryDecoder(io.BytesIO(payload)))) == raw(read)


@given(EVENTS)
@GENERATED
def test_the_schema_is_the_same_each_time_and_no_name_stands_twice(typed: Typed) -> None:
    first, second = (record_of(typed.annotation).avro("shop.cart.event") for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    names: list[str] = []

    def walk(avro: Any) -> None:
        for part in avro if isinstance(avro, list) else [avro]:
            if isinstance(part, dict):
                if "name" in part and "namespace" in part:
                    names.append(f"{part['namespace']}.{part['name']}")
                for inner in (part.get("type"), part.get("items"), part.get("values"), *part.get("fields", ())):
                    if not isinstance(inner, str):
                        walk(inner)

    walk(first)
    assert len(names) == len(set(names))
    canonical = fastavro.schema.to_parsing_canonical_form(first)
    assert canonical == fastavro.schema.to_parsing_canonical_form(json.loads(json.dumps(second)))
