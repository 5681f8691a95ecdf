"""Whether a schema may follow those that a topic has already: what is wrong, where, and the cure.

Stricter than Avro's own rules, which the broker applies, and they laxly: a renamed record, a lost enum symbol or
another logical type passes there and reads wrongly. Everything that any registered version has must stay as it is, so
each release reads what every other one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .derivation import Json
from .errors import SettingsError

PRIMITIVES: Final = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_NAMED: Final = ("record", "enum", "fixed", "error")
_COMPLEX: Final = (*_NAMED, "array", "map")
_ATTRIBUTES: Final = ("logicalType", "precision", "scale", "size")
"""What belongs to a type besides its name: a change of any of them reads the same bytes as something else."""

_PYTHON: Final = {
    ("null", None): "None",
    ("boolean", None): "bool",
    ("int", None): "int (32 bits)",
    ("long", None): "int",
    ("float", None): "float (32 bits)",
    ("double", None): "float",
    ("string", None): "str",
    ("array", None): "tuple",
    ("map", None): "Mapping",
    ("int", "date"): "date",
    ("long", "time-micros"): "time",
    ("long", "timestamp-micros"): "datetime",
    ("string", "uuid"): "UUID",
    ("bytes", "decimal"): "Decimal",
}
"""What a type, with its logical type, is called in the code that declares it, or would; others keep Avro's name."""

_ENVELOPES: Final = ("Commit.events.", "Commit.rejection.", "Command.")

_KEEP: Final = "Keep what was there, and put the change into a new field or type with a name of its own."
_NEW_FIELD: Final = "Make it optional (`X | None = None`) or give it a default."


class Refusal(NamedTuple):
    """One thing that is wrong: where, what, and what to do about it."""

    path: str
    what: str
    cure: str

    def __str__(self) -> str:
        """From the message on: the envelope around it is none of whoever declares it."""
        path = self.path
        for envelope in _ENVELOPES:
            path = path.removeprefix(envelope)
        return f"{path}: {self.what}. {self.cure}"


class Evolution(NamedTuple):
    """What a new schema means for a topic."""

    refused: tuple[Refusal, ...] = ()
    added: tuple[str, ...] = ()
    """The paths of the fields and enum symbols that no version has had yet."""
    known: bool = False
    """Whether a registered version says the same, but for documentation: there is nothing to register."""


class _Node(NamedTuple):
    """A type within one schema, with the named types of that schema and the namespace around it."""

    json: Json
    names: Mapping[str, _Node]
    namespace: str

    def at(self, json: Json) -> _Node:
        """A part of the same schema, references resolved."""
        while isinstance(json, dict) and not (json["type"] in _COMPLEX or json["type"] in PRIMITIVES):
            json = json["type"]
        if isinstance(json, str) and json not in PRIMITIVES:
            return self.names[_full(json, self.namespace)]
        return self._replace(json=json)

    @property
    def kind(self) -> str:
        """`record`, `union`, `long`, …"""
        if isinstance(self.json, list):
            return "union"
        return str(self.json if isinstance(self.json, str) else self.json["type"])

    def attribute(self, name: str) -> Any:
        """What the type says of itself under this name."""
        return self.json.get(name) if isinstance(self.json, dict) else None

    @property
    def name(self) -> str:
        """The full name of a named type."""
        return _full_name(self.json, self.namespace) if self.kind in _NAMED else ""

    @property
    def inner(self) -> _Node:
        """The same, with the namespace that holds within it."""
        return self._replace(namespace=self.name.rpartition(".")[0]) if self.name else self

    @property
    def fields(self) -> dict[str, Json]:
        """A record's fields by their names."""
        return {field["name"]: field for field in self.json["fields"]}

    @property
    def branches(self) -> list[_Node]:
        """A union's members."""
        return [self.at(json) for json in self.json]

    def show(self) -> str:
        """The type in Python's words."""
        if self.kind == "union":
            return " | ".join(branch.show() for branch in self.branches)
        python = _PYTHON.get((self.kind, self.attribute("logicalType")))
        text = python or (f"{self.kind} {self.name}" if self.name else self.kind)
        named = _ATTRIBUTES[1:] if python else _ATTRIBUTES
        extras = [f"{key} {self.attribute(key)}" for key in named if self.attribute(key) is not None]
        return f"{text} ({', '.join(extras)})" if extras else text


def evolution(registered: Sequence[str], new: str) -> Evolution:
    """Compare a new schema with all registered versions of its topic (JSON texts, oldest first).

    1. What a registered version says already is fine, whatever came after it: an old release may start again.
    2. Nothing that any version has is gone, renamed or of another type; unions keep their branches in their order.
    3. A field that a version does not have has a default, the same one for ever: it is what old messages read as.
    4. An enum gets new symbols only if every version of it has a default, which is what an old release reads. Their
       order is free, because every message is read with its writer's schema.
    5. Documentation, aliases, other properties and the order of fields are free.

    Raises SettingsError for a text that is no Avro schema.
    """
    node = _parsed(new)
    plain = _plain(node.json)
    if any(_plain(json.loads(text)) == plain for text in registered):
        return Evolution(known=True)
    olds = [_parsed(text) for text in registered]
    comparison = _Comparison()
    if olds:
        comparison.compare(node.name.rpartition(".")[2] or "the schema", olds, node)
    return Evolution(tuple(comparison.refused), tuple(comparison.added))


def check_evolution(topic: str, registered: Sequence[str], new: str) -> Evolution:
    """The same, raising SettingsError that names all that is wrong on this topic."""
    found = evolution(registered, new)
    if found.refused:
        raise SettingsError(
            f"The schema of {topic} cannot follow those that are registered:\n"
            + "\n".join(f"  {refusal}" for refusal in found.refused),
            cure="What stands in the log would be read wrongly; nothing was registered.",
            topic=topic,
            refused=found.refused,
        )
    return found


class _Comparison:
    """A walk through the new schema and all old ones side by side."""

    def __init__(self) -> None:
        self.refused: list[Refusal] = []
        self.added: list[str] = []
        self._seen: set[tuple[str, ...]] = set()

    def compare(self, path: str, olds: Sequence[_Node], new: _Node) -> None:
        """Compare one type with what stood in its place."""
        different = {old.show(): None for old in olds if not _is_same_type(old, new)}
        if different:
            self._refuse(path, f"was {' and '.join(different)}, is {new.show()}", _KEEP)
            return
        if new.name:
            key = (new.name, *(str(id(old.json)) for old in olds))
            if key in self._seen:  # a named type is compared once, and a record may contain itself
                return
            self._seen.add(key)
        match new.kind:
            case "record" | "error":
                self._compare_records(path, [old.inner for old in olds], new.inner)
            case "enum":
                self._compare_enums(path, olds, new)
            case "array":
                self.compare(path, [old.at(old.json["items"]) for old in olds], new.at(new.json["items"]))
            case "map":
                self.compare(path, [old.at(old.json["values"]) for old in olds], new.at(new.json["values"]))
            case "union":
                for index, branch in enumerate(new.branches):
                    self.compare(path, [old.branches[index] for old in olds], branch)
            case _:  # the same primitive or fixed type
                pass

    def _compare_records(self, path: str, olds: Sequence[_Node], new: _Node) -> None:
        fields = new.fields
        gone = {name: None for old in olds for name in old.fields if name not in fields}
        for name in gone:
            self._refuse(f"{path}.{name}", "is gone", "Keep it: a field or type stays, under its name, for ever.")
        for name, field in fields.items():
            with_it = [old for old in olds if name in old.fields]
            if len(with_it) < len(olds):
                self._check_default(f"{path}.{name}", [old.fields[name] for old in with_it], field)
            if "default" in field and not _fits(field["default"], new.at(field["type"])):
                shown = json.dumps(field["default"])
                self._refuse(f"{path}.{name}", f"the default {shown} is no {new.at(field['type']).show()}", _NEW_FIELD)
            if not with_it:
                self.added.append(f"{path}.{name}")
            else:
                self.compare(
                    f"{path}.{name}", [old.at(old.fields[name]["type"]) for old in with_it], new.at(field["type"])
                )

    def _check_default(self, path: str, olds: Sequence[Json], new: Json) -> None:
        """What a message without the field reads as. It is there from the field's first version, and stays."""
        if "default" not in new:
            self._refuse(path, "is new and has no default", _NEW_FIELD)
            return
        others = [old["default"] for old in olds if "default" in old and old["default"] != new["default"]]
        if others:
            self._refuse(
                path,
                f"has the default {json.dumps(new['default'])}, and had {json.dumps(others[0])}",
                "Keep the default: older messages, which do not have the field, would read differently.",
            )

    def _compare_enums(self, path: str, olds: Sequence[_Node], new: _Node) -> None:
        for symbol in {symbol: None for old in olds for symbol in old.json["symbols"]}:
            if symbol not in new.json["symbols"]:
                self._refuse(path, f"the symbol {symbol} is gone", "Keep it: a symbol stays, under its name, for ever.")
        added = [s for s in new.json["symbols"] if not any(s in old.json["symbols"] for old in olds)]
        fixed = any(
            symbol not in old.json["symbols"] and "default" not in old.json
            for old in olds
            for symbol in new.json["symbols"]
        )
        if fixed:
            what = f"the symbols {', '.join(added)} are new" if added else "older versions lack some of the symbols"
            self._refuse(
                path,
                f"{what}, and the enum has no default for older readers",
                "Use a new field: an enum without a default keeps its symbols.",
            )
        self.added += [f"{path} = {symbol}" for symbol in added]

    def _refuse(self, path: str, what: str, cure: str) -> None:
        self.refused.append(Refusal(path, what, cure))


def _is_same_type(old: _Node, new: _Node) -> bool:
    if old.kind != new.kind or old.name != new.name:
        return False
    if new.kind == "union":
        olds, news = old.branches, new.branches
        return len(olds) == len(news) and all(map(_is_same_type, olds, news))
    return all(old.attribute(key) == new.attribute(key) for key in _ATTRIBUTES)


def _fits(default: Json, node: _Node) -> bool:
    """Whether a default is a value of its type; for a union, of its first branch (Avro specification, Records)."""
    match node.kind:
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            return isinstance(default, int) and not isinstance(default, bool)
        case "float" | "double":
            return isinstance(default, (int, float)) and not isinstance(default, bool)
        case "bytes" | "string":
            return isinstance(default, str)
        case "fixed":
            return isinstance(default, str) and len(default) == node.json["size"]
        case "enum":
            return default in node.json["symbols"]
        case "array":
            return isinstance(default, list) and all(_fits(item, node.at(node.json["items"])) for item in default)
        case "map":
            return isinstance(default, dict) and all(
                _fits(value, node.at(node.json["values"])) for value in default.values()
            )
        case "union":
            return _fits(default, node.branches[0])
        case _:
            return isinstance(default, dict) and all(
                _fits(default.get(name, field.get("default")), node.inner.at(field["type"]))
                for name, field in node.fields.items()
            )


def _parsed(text: str) -> _Node:
    """The root of a schema, with its named types. Raises SettingsError."""
    import avro.errors
    import avro.schema

    try:
        avro.schema.parse(text)
        schema = json.loads(text)
        names: dict[str, _Node] = {}
        _collect(schema, "", names)
    except (avro.errors.AvroException, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"This is no Avro schema: {error}. It begins: {text[:100]!r}.",
            cure="Did somebody else register it? Find out who, and take the right to do so away.",
        ) from error
    return _Node(schema, names, "")


def _collect(json: Json, namespace: str, names: dict[str, _Node]) -> None:
    if isinstance(json, list):
        for branch in json:
            _collect(branch, namespace, names)
    if not isinstance(json, dict):
        return
    if json["type"] in _NAMED:
        name = _full_name(json, namespace)
        names[name] = _Node(json, names, namespace)
        namespace = name.rpartition(".")[0]
    for part in (json.get("items"), json.get("values"), *(field["type"] for field in json.get("fields", ()))):
        _collect(part, namespace, names)


def _full_name(json: Json, namespace: str) -> str:
    return _full(json["name"], json.get("namespace", namespace))


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _plain(json: Json) -> Json:
    """A schema without its documentation, for comparing."""
    if isinstance(json, list):
        return [_plain(part) for part in json]
    if isinstance(json, dict):
        return {key: _plain(part) if key != "default" else part for key, part in json.items() if key != "doc"}
    return json
