"""The types that hold others: optional values, tuples, sets and mappings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .field_type import Convert, FieldType, Inexpressible, Json


def inside(namespace: str, record: str, field: str) -> str:
    """The namespace of the types within a record's field. The underscore: Java has no package `Bought` beside a class
    `Bought` (docs/adr/0005)."""
    return f"{namespace}._{record}.{field}"


class Maybe(FieldType):
    """`X | None`."""

    def __init__(self, inner: FieldType) -> None:
        self._inner = inner

    @property
    def unit(self) -> str:  # type: ignore[override]
        """That of what is there."""
        return self._inner.unit

    def parts(self) -> Iterable[FieldType]:
        return (self._inner,)

    def avro(self, namespace: str) -> Json:
        return ["null", self._inner.avro(namespace)]

    def writer(self) -> Convert | None:
        return _unless_none(self._inner.writer())

    def reader(self, written: Json) -> Convert | None:
        return _unless_none(self._inner.reader(_present(written)))

    def misfit(self, written: Json) -> str | None:
        return self._inner.misfit(_present(written))

    def default(self, value: Any) -> Json:
        if value is None:
            return None
        raise Inexpressible(value)


def _present(written: Json) -> Json:
    """What a value has that is there; a field that was not optional once is as good."""
    return next(branch for branch in written if branch != "null") if isinstance(written, list) else written


def _unless_none(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda value: None if value is None else convert(value)


class Array(FieldType):
    """`tuple[X, ...]`."""

    def __init__(self, item: FieldType) -> None:
        self._item = item

    def parts(self) -> Iterable[FieldType]:
        return (self._item,)

    def avro(self, namespace: str) -> Json:
        return {"type": "array", "items": self._item.avro(namespace)}

    def writer(self) -> Convert | None:
        convert = self._item.writer()

        def items(value: Any) -> Any:
            if not isinstance(value, tuple):
                raise TypeError(f"is a {type(value).__name__}, not a tuple")
            return value if convert is None else [convert(item) for item in value]

        return items

    def reader(self, written: Json) -> Convert | None:
        convert = self._item.reader(written["items"])
        return None if convert is None else lambda items: [convert(item) for item in items]

    def misfit(self, written: Json) -> str | None:
        if not isinstance(written, dict) or written["type"] != "array":
            return super().misfit(written)
        return self._item.misfit(written["items"])

    def default(self, value: Any) -> Json:
        return [self._item.default(item) for item in value]


class Set(Array):
    """`frozenset[X]`, in an order of its values: that of the set itself differs from process to process."""

    def writer(self) -> Convert | None:
        convert, key = self._item.writer(), self._item.sort_key()

        def items(value: Any) -> Any:
            if not isinstance(value, frozenset):
                raise TypeError(f"is a {type(value).__name__}, not a frozenset")
            return sorted(value if convert is None else map(convert, value), key=key)

        return items

    def default(self, value: Any) -> Json:
        convert, key = self._item.writer(), self._item.sort_key()
        return super().default(sorted(value, key=lambda item: key(item if convert is None else convert(item))))


class Map(FieldType):
    """`Mapping[str, V]`."""

    def __init__(self, values: FieldType) -> None:
        self._values = values

    def parts(self) -> Iterable[FieldType]:
        return (self._values,)

    def avro(self, namespace: str) -> Json:
        return {"type": "map", "values": self._values.avro(namespace)}

    def writer(self) -> Convert | None:
        convert = self._values.writer()
        return None if convert is None else lambda items: {key: convert(value) for key, value in items.items()}

    def reader(self, written: Json) -> Convert | None:
        convert = self._values.reader(written["values"])
        return None if convert is None else lambda items: {key: convert(value) for key, value in items.items()}

    def misfit(self, written: Json) -> str | None:
        if not isinstance(written, dict) or written["type"] != "map":
            return super().misfit(written)
        return self._values.misfit(written["values"])

    def default(self, value: Any) -> Json:
        return {key: self._values.default(part) for key, part in value.items()}


class Row(FieldType):
    """`tuple[A, B]`: a record with the fields e1, e2, …"""

    NAME = "Tuple"

    def __init__(self, items: list[FieldType]) -> None:
        self._items = {f"e{number}": item for number, item in enumerate(items, 1)}

    def parts(self) -> Iterable[FieldType]:
        return self._items.values()

    def avro(self, namespace: str) -> Json:
        return {
            "type": "record",
            "name": self.NAME,
            "namespace": namespace,
            "fields": [
                {
                    "name": name,
                    "type": item.avro(inside(namespace, self.NAME, name)),
                    **({"default": None} if isinstance(item, Maybe) else {}),
                }
                for name, item in self._items.items()
            ],
        }

    def writer(self) -> Convert | None:
        parts = [(name, item.writer()) for name, item in self._items.items()]

        def record(value: Any) -> Any:
            if not isinstance(value, tuple):
                raise TypeError(f"is a {type(value).__name__}, not a tuple")
            pairs = zip(parts, value, strict=True)
            return {name: part if convert is None else convert(part) for (name, convert), part in pairs}

        return record

    def reader(self, written: Json) -> Convert | None:
        types = {field["name"]: field["type"] for field in written["fields"]}
        parts = [(name, item.reader(types[name])) for name, item in self._items.items()]
        return lambda record: tuple(record[name] if each is None else each(record[name]) for name, each in parts)

    def misfit(self, written: Json) -> str | None:
        if not isinstance(written, dict) or written["type"] != "record":
            return super().misfit(written)
        types = {field["name"]: field["type"] for field in written["fields"]}
        if list(types) != list(self._items):
            return f" as a tuple of {len(types)}, which this code declares as one of {len(self._items)}"
        return next((why for name, item in self._items.items() if (why := item.misfit(types[name]))), None)

    def default(self, value: Any) -> Json:
        return {name: item.default(part) for (name, item), part in zip(self._items.items(), value, strict=True)}
