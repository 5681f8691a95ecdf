"""Which schema may follow which, and what is said of one that may not."""

import copy
import io
import json
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import avro.schema
import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import assume, given
from hypothesis import strategies as st
from magnetar.schemas import Command, Event, Precision, Rejection, SettingsError, State
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.checkpoint_block import CHECKPOINT_JSON
from magnetar.schemas.evolution import check_evolution, evolution

Json = Any


def record(*fields: Json, name: str = "Bought", **more: Json) -> Json:
    """A record; a field given as a pair has no default, as a triple one."""
    made = [
        dict(zip(("name", "type", "default"), field, strict=False)) if isinstance(field, tuple) else field
        for field in fields
    ]
    return {"type": "record", "name": name, "namespace": "shop.order", "fields": made, **more}


def enum(*symbols: str, **more: Json) -> Json:
    return {"type": "enum", "name": "EventType", "symbols": list(symbols), **more}


def logical(base: str, logical_type: str, **more: Json) -> Json:
    return {"type": base, "logicalType": logical_type, **more}


def fixed(size: int, name: str = "Owner") -> Json:
    return {"type": "fixed", "name": name, "size": size}


def refused(new: Json, *registered: Json) -> list[str]:
    """What is said against a schema."""
    return [str(each) for each in evolution([json.dumps(old) for old in registered], json.dumps(new)).refused]


PIECES = ("pieces", "long")
KEEP = "Keep what was there, and put the change into a new field or type with a name of its own."


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (record(PIECES), record(), "Bought.pieces: is gone."),
        (record(PIECES), record(("count", "long", 0)), "Bought.pieces: is gone."),
        (
            record(PIECES),
            record({"name": "count", "type": "long", "default": 0, "aliases": ["pieces"]}),
            "Bought.pieces: is gone.",
        ),
        (record(PIECES), record(("pieces", "double")), "Bought.pieces: was int, is float."),
        (record(PIECES), record(("pieces", "int")), "Bought.pieces: was int, is int (32 bits)."),
        (record(PIECES), record(("pieces", ["null", "long"], None)), "Bought.pieces: was int, is None | int."),
        (record(("a", ["null", "long"], None)), record(("a", "long", 0)), "Bought.a: was None | int, is int."),
        (
            record(("a", ["null", "long"], None)),
            record(("a", ["null", "int"], None)),
            "was None | int, is None | int (32 bits)",
        ),
        (
            record(("a", ["null", "long"], None)),
            record(("a", ["long", "null"], 0)),
            "was None | int, is int | None",
        ),
        (record(("a", ["null", "long"])), record(("a", ["null", "long", "string"])), "is None | int | str"),
        (record(), record(PIECES), "Bought.pieces: is new and has no default."),
        (record(), record(("pieces", "long", "none")), 'the default "none" is no int'),
        (record(), record(("a", ["null", "long"], 3)), "the default 3 is no None | int"),
        (record(), record(name="Sold"), "was record shop.order.Bought, is record shop.order.Sold"),
        (record(), record() | {"namespace": "store.order"}, "is record store.order.Bought"),
        (record(("at", logical("long", "timestamp-micros"))), record(("at", "long")), "was datetime, is int."),
        (record(("id", "string")), record(("id", logical("string", "uuid"))), "was str, is UUID"),
        (
            record(("at", logical("long", "timestamp-millis"))),
            record(("at", logical("long", "timestamp-micros"))),
            "was long (logicalType timestamp-millis), is datetime",
        ),
        (
            record(("price", logical("bytes", "decimal", precision=9, scale=2))),
            record(("price", logical("bytes", "decimal", precision=9, scale=4))),
            "was Decimal (precision 9, scale 2), is Decimal (precision 9, scale 4)",
        ),
        (record(("o", fixed(16))), record(("o", fixed(8))), "size 16), is fixed shop.order.Owner (size 8)"),
        (record(("o", fixed(16))), record(("o", fixed(16, "Chief"))), "is fixed shop.order.Chief (size 16)"),
        (
            record(("e", enum("a", "b", default="a"))),
            record(("e", enum("a", default="a"))),
            "Bought.e: the symbol b is gone",
        ),
        (record(("e", enum("a"))), record(("e", enum("a", "b"))), "the symbols b are new, and the enum has no default"),
        (
            record(("tags", {"type": "array", "items": "string"})),
            record(("tags", {"type": "array", "items": "long"})),
            "Bought.tags: was str, is int.",
        ),
        (
            record(("m", {"type": "map", "values": record(PIECES, name="In")})),
            record(("m", {"type": "map", "values": record(name="In")})),
            "Bought.m.pieces: is gone.",
        ),
        (
            record(("a", ["null", record(PIECES, name="In")], None)),
            record(("a", ["null", record(("pieces", "int"), name="In")], None)),
            "Bought.a.pieces: was int, is int (32 bits).",
        ),
    ],
)
def test_what_reads_differently_is_refused_with_its_place(old: Json, new: Json, what: str) -> None:
    found = refused(new, old)
    assert len(found) == 1
    assert what in found[0]


@pytest.mark.parametrize(
    ("old", "new", "added"),
    [
        (record(PIECES), record(PIECES, ("sku", ["null", "string"], None)), ["Bought.sku"]),
        (record(PIECES), record(("sku", "string", ""), PIECES), ["Bought.sku"]),
        (record(), record(("a", ["null", record(PIECES, name="In")], None)), ["Bought.a"]),
        (record(("e", enum("a", default="a"))), record(("e", enum("b", "a", default="a"))), ["Bought.e = b"]),
        (record(PIECES), record({"name": "pieces", "type": "long", "default": 1}), []),
        (record(PIECES, ("a", "int")), record(("a", "int"), PIECES), []),
        (record(PIECES), record(PIECES, doc="What was bought."), []),
        (record(PIECES), record(("pieces", {"type": "long", "personal": "yes"})), []),
    ],
)
def test_what_every_release_reads_alike_may_follow(old: Json, new: Json, added: list[str]) -> None:
    found = evolution([json.dumps(old)], json.dumps(new))
    assert found.refused == ()
    assert list(found.added) == added


def test_the_order_of_an_enums_symbols_is_free() -> None:
    old = record(("e", enum("a", "b", "c")))
    assert refused(record(("e", enum("c", "a", "b"))), old) == []


def test_all_versions_count_and_not_only_the_last() -> None:
    first, second = record(PIECES), record()
    assert refused(record(("pieces", "string", "")), first, second) == [f"Bought.pieces: was int, is str. {KEEP}"]


def test_a_default_stays_once_a_version_without_the_field_is_registered() -> None:
    without, three = record(), record(("pieces", "long", 3))
    (text,) = refused(record(("pieces", "long", 5)), without, three)
    assert text.startswith("Bought.pieces: has the default 5, and had 3. Keep the default")
    assert refused(record(("pieces", "long", 5)), three) == []


def test_a_version_that_is_registered_may_start_again_whatever_came_after_it() -> None:
    old, newer = record(PIECES), record(PIECES, ("sku", ["null", "string"], None))
    assert evolution([json.dumps(old), json.dumps(newer)], json.dumps(record(PIECES, doc="Bought."))).known


def test_the_first_schema_of_a_topic_may_be_anything() -> None:
    assert evolution([], json.dumps(record(PIECES))) == ((), (), False)


def test_a_record_that_contains_itself_is_compared_to_its_end() -> None:
    def tree(leaf: str) -> Json:
        return record(("leaf", leaf), ("left", ["null", "Tree"], None), name="Tree")

    assert refused(tree("int"), tree("long")) == [f"Tree.leaf: was int, is int (32 bits). {KEEP}"]


def test_all_that_is_wrong_is_said_at_once_and_the_topic_named() -> None:
    old = record(PIECES, ("sku", "string"))
    with pytest.raises(SettingsError) as error:
        check_evolution("shop/order-events", [json.dumps(old)], json.dumps(record(("pieces", "int"))))
    assert "The schema of shop/order-events cannot follow" in error.value.what
    assert "Bought.sku: is gone." in error.value.what
    assert "Bought.pieces: was int, is int (32 bits)." in error.value.what
    assert "nothing was registered" in error.value.cure


@pytest.mark.parametrize("text", ["", "7", '{"type": "record"}', '{"type": "nonsense", "name": "x"}', '"unheard"'])
def test_a_text_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no Avro schema"):
        evolution([], text)


# --- what the framework derives -------------------------------------------------------------------------------------


class Buy(Command):
    sku: str


class Bought(Event):
    sku: str
    pieces: int


class Returned(Event):
    reason: str


class Empty(Rejection):
    pass


class BoughtNarrower(Event, wire_name="Bought"):
    sku: str
    pieces: float


def commits(*events: type[Event]) -> str:
    return AggregateSchema("shop", "Order", commands=[Buy], events=events, rejections=[Empty]).commit_json


def test_a_new_event_type_may_follow_wherever_its_name_sorts() -> None:
    found = evolution([commits(Bought)], commits(Bought, Returned))
    assert found.refused == ()
    assert found.added == ("Commit.events.type = Returned", "Commit.events.Returned")
    assert evolution([commits(Returned)], commits(Bought, Returned)).refused == ()


def test_a_changed_event_is_named_with_its_path() -> None:
    (found,) = evolution([commits(Bought)], commits(BoughtNarrower)).refused
    assert str(found) == f"Bought.pieces: was int, is float. {KEEP}"


def test_a_removed_event_type_is_refused() -> None:
    paths = [each.path for each in evolution([commits(Bought, Returned)], commits(Bought)).refused]
    assert paths == ["Commit.events.Returned", "Commit.events.type"]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class WiderColour(Enum):
    GREEN = "green"
    BLUE = "blue"
    RED = "red"


WiderColour.__name__ = WiderColour.__qualname__ = "Colour"


class Address(State):
    street: str


class Phone(State):
    number: str


class Fax(State):
    number: str


class Moved(Event):
    colour: Colour
    to: Address | Phone
    stops: tuple[Address, ...]
    counts: Mapping[str, Annotated[Decimal, Precision(9, 2)]]


class MovedWider(Event, wire_name="Moved"):
    counts: Mapping[str, Annotated[Decimal, Precision(9, 2)]]
    colour: WiderColour
    to: Address | Phone | Fax
    stops: tuple[Address, ...]
    note: str = "none"
    hops: tuple[int, ...] = ()
    paint: WiderColour | None = None


def test_types_of_every_kind_grow() -> None:
    found = evolution([commits(Moved)], commits(MovedWider))
    assert found.refused == ()
    assert {path.removeprefix("Commit.events.Moved.") for path in found.added} == {
        "colour = green",
        "to.type = Fax",
        "to.Fax",
        "note",
        "hops",
        "paint",
    }
    back = evolution([commits(MovedWider)], commits(Moved)).refused
    assert len(back) == 6


def test_the_checkpoints_schema_may_follow_itself() -> None:
    assert evolution([CHECKPOINT_JSON], CHECKPOINT_JSON).known


# --- the property: what is accepted is read by everybody, in both directions ------------------------------------------

SCALARS = ["boolean", "int", "long", "float", "double", "string", "bytes"]
LOGICAL = [logical("long", "timestamp-micros"), logical("int", "date"), logical("string", "uuid")]
DEFAULTS = {"boolean": True, "int": 1, "long": 2, "float": 1.5, "double": 2.5, "string": "s", "bytes": "b"}


@st.composite
def types(draw: st.DrawFn, depth: int = 2) -> Json:
    """A type; named ones get their names from `numbered`."""
    kinds = ["scalar", "logical", "enum", "fixed", *(["record", "array", "map", "optional"] if depth else [])]
    match draw(st.sampled_from(kinds)):
        case "scalar":
            return draw(st.sampled_from(SCALARS))
        case "logical":
            return dict(draw(st.sampled_from(LOGICAL)))
        case "enum":
            symbols = draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True))
            return enum(*symbols, **({"default": symbols[0]} if draw(st.booleans()) else {}))
        case "fixed":
            return fixed(draw(st.integers(1, 3)))
        case "record":
            return draw(records(depth - 1))
        case "array":
            return {"type": "array", "items": draw(types(depth - 1))}
        case "map":
            return {"type": "map", "values": draw(types(depth - 1))}
        case _:
            inner = draw(types(depth - 1))
            return inner if isinstance(inner, list) else ["null", inner]


@st.composite
def records(draw: st.DrawFn, depth: int = 2) -> Json:
    """A record with some fields, of which some have defaults."""
    names = draw(st.lists(st.sampled_from("pqrst"), max_size=3, unique=True))
    return record(*[draw(fields(name, depth)) for name in names])


@st.composite
def fields(draw: st.DrawFn, name: str, depth: int = 1) -> Json:
    """A field, with a default if there is an easy one and luck has it."""
    kind = draw(types(depth))
    field = {"name": name, "type": kind}
    if isinstance(kind, str) and draw(st.booleans()):
        field["default"] = DEFAULTS[kind]
    elif isinstance(kind, list) and draw(st.booleans()):
        field["default"] = None
    return field


def numbered(schema: Json, path: str = "T") -> Json:
    """The schema with a name for each named type, by its place."""
    if isinstance(schema, list):
        return [numbered(part, path) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    if "name" in made:
        made["name"] = path + made.get("suffix", "")
    for key in ("items", "values"):
        if key in made:
            made[key] = numbered(made[key], path + "x")
    if "fields" in made:
        made["fields"] = [{**f, "type": numbered(f["type"], path + f["name"])} for f in made["fields"]]
    return made


def parts(schema: Json) -> list[Json]:
    """All objects within a schema that can be changed in place."""
    found: list[Json] = []
    if isinstance(schema, list):
        found += [part for branch in schema for part in parts(branch)]
    elif isinstance(schema, dict):
        found.append(schema)
        for part in (schema.get("items"), schema.get("values"), *(f["type"] for f in schema.get("fields", ()))):
            found += parts(part)
    return found


@st.composite
def changed(draw: st.DrawFn, schema: Json) -> Json:
    """The schema after a few changes, good and bad."""
    made = copy.deepcopy(schema)
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(parts(made)))
        if "fields" in part:
            change_record(draw, part)
        elif "symbols" in part:
            change_enum(draw, part)
        elif "size" in part:
            part["size"] = draw(st.integers(1, 3))
        elif "logicalType" in part:
            part.update(draw(st.sampled_from(LOGICAL)))
    return made


def change_record(draw: st.DrawFn, part: Json) -> None:
    here = part["fields"]
    match draw(st.sampled_from(["add", "add", "add", "remove", "retype", "default", "turn", "rename"])):
        case "add":
            free = sorted(set("pqrstuvw") - {field["name"] for field in here})
            here.insert(draw(st.integers(0, len(here))), draw(fields(draw(st.sampled_from(free)))))
        case "remove" if here:
            here.pop()
        case "retype" if here:
            here[-1] = draw(fields(here[-1]["name"]))
        case "default" if here:
            here[-1].pop("default", None)
        case "turn":
            here.reverse()
        case "rename":
            part["suffix"] = "z"
        case _:
            pass


def change_enum(draw: st.DrawFn, part: Json) -> None:
    if draw(st.booleans()):
        part["symbols"].append("e") if "e" not in part["symbols"] else None
    elif draw(st.booleans()):
        part["symbols"].reverse()
    elif len(part["symbols"]) > 1 and part["symbols"][-1] != part.get("default"):
        part["symbols"].pop()


@st.composite
def values(draw: st.DrawFn, schema: Json) -> Json:
    """A value that the schema can write."""
    if isinstance(schema, list):
        branch = draw(st.sampled_from(schema))
        return None if branch == "null" else draw(values(branch))
    kind = schema if isinstance(schema, str) else schema["type"]
    match kind:
        case "record":
            return {field["name"]: draw(values(field["type"])) for field in schema["fields"]}
        case "enum":
            return draw(st.sampled_from(schema["symbols"]))
        case "fixed":
            return draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
        case "array":
            return draw(st.lists(values(schema["items"]), max_size=2))
        case "map":
            return draw(st.dictionaries(st.sampled_from("kl"), values(schema["values"]), max_size=2))
        case "string" if isinstance(schema, dict):
            return draw(st.uuids())
        case "boolean":
            return draw(st.booleans())
        case "int" | "long":
            return draw(st.integers(0, 1000))
        case "float" | "double":
            return draw(st.sampled_from([0.0, -1.5, 2.25]))
        case "string":
            return draw(st.text(max_size=3))
        case _:
            return draw(st.binary(max_size=3))


def read(value: Json, writer: Json, reader: Json) -> Json:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    stream.seek(0)
    return fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


def is_read_by(reader: Json, writer: Json) -> bool:
    """What the `avro` package says."""
    found = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
    )
    return found.compatibility is SchemaCompatibilityType.compatible


def common(value: Json, schema: Json, other: Json) -> Json:
    """What of a value the other schema has too; symbols that it has not, are its default."""
    if isinstance(schema, list):
        return value if value is None else common(value, schema[1], other[1])
    if isinstance(schema, str) or "logicalType" in schema:
        return value
    match schema["type"]:
        case "record":
            theirs = {field["name"]: field["type"] for field in other["fields"]}
            ours = {field["name"]: field["type"] for field in schema["fields"]}
            return {
                name: common(part, ours[name], theirs[name])
                for name, part in value.items()
                if name in theirs and name in ours
            }
        case "enum":
            return value if value in other["symbols"] else other["default"]
        case "array":
            return [common(item, schema["items"], other["items"]) for item in value]
        case "map":
            return {key: common(item, schema["values"], other["values"]) for key, item in value.items()}
        case _:
            return value


@given(st.data())
def test_whoever_is_accepted_reads_all_others_and_is_read_by_them(data: st.DataObject) -> None:
    old = data.draw(records(), label="old")
    new = numbered(data.draw(changed(old), label="new"))
    old = numbered(old)
    found = evolution([json.dumps(old)], json.dumps(new))
    if not (is_read_by(old, new) and is_read_by(new, old)):
        assert found.refused, "avro is stricter"
    assume(not found.refused)
    for writer, reader in ((old, new), (new, old)):
        value = data.draw(values(writer), label="value")
        got = read(value, writer, reader)
        assert common(got, reader, writer) == common(read(value, writer, writer), writer, reader)
