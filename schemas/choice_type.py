"""The types with few values: enums and literals."""

from __future__ import annotations

import enum
import re
from typing import Any, Final

from .field_type import UNKNOWN_SYMBOL, Convert, FieldType, Json, Unknown, itself, kind_of, shown

_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Symbols(FieldType):
    """An Enum. The symbols are its values where all of them can be symbols, otherwise the names of its members."""

    NAME = "Symbol"
    """Of every enum, so that its class may be renamed: the namespace tells one from the other."""

    def __init__(self, cls: type[enum.Enum]) -> None:
        self._cls = cls
        values = [member.value for member in cls]
        are_symbols = all(isinstance(value, str) and _SYMBOL.fullmatch(value) for value in values)
        self.symbols = {member: member.value if are_symbols else member.name for member in cls}

    def avro(self, namespace: str) -> Json:
        schema = {
            "type": "enum",
            "name": self.NAME,
            "namespace": namespace,
            "symbols": [UNKNOWN_SYMBOL, *self.symbols.values()],
            "default": UNKNOWN_SYMBOL,
        }
        if doc := vars(self._cls).get("__doc__"):
            schema["doc"] = doc
        return schema

    def writer(self) -> Convert | None:
        symbols, cls = self.symbols, self._cls

        def symbol(value: Any) -> str:
            if isinstance(value, cls):
                return symbols[value]
            raise TypeError(f"is {value!r}, not a {cls.__name__}")

        return symbol

    def reader(self, written: Json) -> Convert | None:
        values = {symbol: member.value for member, symbol in self.symbols.items()}
        name = self._cls.__qualname__

        def value(symbol: Any) -> Any:
            if symbol in values:
                return values[symbol]
            raise Unknown(f"{name}.{symbol}, which this code lacks")

        return value

    def misfit(self, written: Json) -> str | None:
        kind = kind_of(written)
        return None if "enum" in kind else f" as {shown(kind)}, which this code declares as an enum"

    def default(self, value: Any) -> Json:
        return self.symbols[value]

    def sort_key(self) -> Convert:
        return itself


class Choice(FieldType):
    """A Literal: one of a few texts, numbers or truth values. They stand in the schema for people, not for readers."""

    def __init__(self, avro: str, values: tuple[Any, ...]) -> None:
        self._avro = avro
        self._values = values

    def avro(self, namespace: str) -> Json:
        return {"type": self._avro, "literals": list(self._values)}

    def writer(self) -> Convert | None:
        return self._checked(TypeError)

    def reader(self, written: Json) -> Convert | None:
        return self._checked(Unknown)

    def _checked(self, refusal: type[Exception]) -> Convert:
        values, kind = self._values, type(self._values[0])

        def check(value: Any) -> Any:
            if type(value) is kind and value in values:
                return value
            raise refusal(f"is {value!r}, none of {', '.join(map(repr, values))}")

        return check

    def misfit(self, written: Json) -> str | None:
        kind = kind_of(written)
        return None if kind == (self._avro,) else f" as {shown(kind)}, which this code declares as {self._avro}"

    def sort_key(self) -> Convert:
        return itself
