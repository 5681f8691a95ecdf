"""The types that a single value may have: what each is in Avro, and how its values are written and read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeAlias
from uuid import UUID

from .precision import Precision

Json: TypeAlias = Any
"""What `json.loads` gives: an Avro schema, as a rule."""

Convert: TypeAlias = Callable[[Any], Any]

UNKNOWN_SYMBOL: Final = "_unknown"
"""The first symbol of every enum and its default: what an old reader sees of a newer symbol. It is never written."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)


class Inexpressible(Exception):
    """A default that Avro's JSON cannot say, though Python can: the field has none in the schema then."""


class Unknown(Exception):
    """A value that the writer's schema allows and this code does not know: an enum's symbol, a literal."""


class FieldType:
    """What one annotation means on the wire. The codec of a class is compiled from these, once."""

    unit: ClassVar[str] = ""
    """For the comment of the ClickHouse column, where the type alone does not say it."""

    def avro(self, namespace: str) -> Json:
        """The Avro schema. `namespace` is that of a type with a name: no other type of the whole schema shares it."""
        raise NotImplementedError

    def writer(self) -> Convert | None:
        """From a value to what `fastavro` takes, or None if that is the same. Raises TypeError or ValueError."""
        return None

    def reader(self, written: Json) -> Convert | None:
        """From what `fastavro` reads with the writer's schema to what `msgspec` converts, or None if it is the same.

        Raises Unknown.
        """
        return None

    def misfit(self, written: Json) -> str | None:
        """What of the writer's schema this code cannot read, or None. Begins with a field's path or with a space."""
        ours, theirs = kind_of(self.avro("")), kind_of(written)
        return None if ours == theirs else f" as {shown(theirs)}, which this code declares as {shown(ours)}"

    def default(self, value: Any) -> Json:
        """A default as Avro's JSON. Raises Inexpressible."""
        return value

    def parts(self) -> Iterable[FieldType]:
        """The types within it."""
        return ()

    def sort_key(self) -> Convert:
        """The order of a set's elements, as they are written: the same in every process."""
        return repr


def kind_of(avro: Json) -> tuple[Any, ...]:
    """What makes two types the same, but for what is within them."""
    if isinstance(avro, list):
        return ("optional",)
    if isinstance(avro, str):
        return (avro,)
    parts = (avro.get(key) for key in ("precision", "scale", "unit", "type", "logicalType"))
    return tuple(part for part in parts if part is not None)


def shown(kind: tuple[Any, ...]) -> str:
    """A kind in words."""
    return " ".join(map(str, kind))


class Plain(FieldType):
    """A bool, int or str: the same here and there."""

    def __init__(self, avro: Json) -> None:
        self._avro = avro

    def avro(self, namespace: str) -> Json:
        return self._avro

    def sort_key(self) -> Convert:
        return itself


class Float(Plain):
    """A float. JSON has no infinities."""

    def default(self, value: Any) -> Json:
        if not math.isfinite(value):
            raise Inexpressible(value)
        return float(value)

    def sort_key(self) -> Convert:
        return lambda value: (math.isnan(value), 0.0 if math.isnan(value) else value)  # NaN comes last


class Checked(Plain):
    """A type whose values `msgspec` would also take as texts: only the real ones are written."""

    def __init__(self, avro: Json, kind: type[Any]) -> None:
        super().__init__(avro)
        self._type = kind

    def writer(self) -> Convert | None:
        kind = self._type

        def check(value: Any) -> Any:
            if isinstance(value, kind):
                return value
            raise TypeError(f"is a {type(value).__name__}, not a {kind.__name__}")

        return check


class Bytes(Checked):
    """Bytes. Avro's JSON has each byte as the character with its number."""

    def default(self, value: Any) -> Json:
        return value.decode("latin-1")


class Date(Checked):
    """A day, as days since 1970."""

    def default(self, value: Any) -> Json:
        return value.toordinal() - _EPOCH_DAY


class Instant(Checked):
    """A datetime with a time zone, as microseconds since 1970: the instant is kept, the zone is not."""

    def writer(self) -> Convert | None:
        def check(value: Any) -> Any:
            if not isinstance(value, datetime):
                raise TypeError(f"is a {type(value).__name__}, not a datetime")
            if value.tzinfo is None:
                raise ValueError(f"is {value.isoformat()}, a time without a time zone")
            return value

        return check

    def default(self, value: Any) -> Json:
        return (value - _EPOCH) // _MICROSECOND


class TimeOfDay(Checked):
    """A time without a zone: of which day would it be?"""

    unit = "microseconds since midnight"

    def writer(self) -> Convert | None:
        def check(value: Any) -> Any:
            if not isinstance(value, time):
                raise TypeError(f"is a {type(value).__name__}, not a time")
            if value.tzinfo is not None:
                raise ValueError(f"is {value.isoformat()}: a time of day has no time zone; use a datetime")
            return value

        return check

    def default(self, value: Any) -> Json:
        return (datetime.combine(_EPOCH.date(), value, UTC) - _EPOCH) // _MICROSECOND


class Duration(Plain):
    """A timedelta, as a long of microseconds. Avro's own `duration` has months and no negatives."""

    unit = "microseconds"

    def __init__(self) -> None:
        super().__init__({"type": "long", "unit": self.unit})

    def writer(self) -> Convert | None:
        def microseconds(value: Any) -> int:
            if isinstance(value, timedelta):
                return value // _MICROSECOND
            raise TypeError(f"is a {type(value).__name__}, not a timedelta")

        return microseconds

    def reader(self, written: Json) -> Convert | None:
        return lambda value: timedelta(microseconds=value)

    def default(self, value: Any) -> Json:
        return value // _MICROSECOND


class Uuid(Checked):
    """A UUID, as its text (docs/adr/0002)."""

    def __init__(self) -> None:
        super().__init__({"type": "string", "logicalType": "uuid"}, UUID)

    def default(self, value: Any) -> Json:
        return str(value)


class Fixed(Plain):
    """A Decimal with a precision: never rounded, refused if it does not fit."""

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        digits, decimals = precision.digits, precision.decimals
        super().__init__({"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": decimals})

    def writer(self) -> Convert | None:
        fit = self._precision.fit

        def check(value: Any) -> Decimal:
            if not isinstance(value, Decimal):
                raise TypeError(f"is a {type(value).__name__}, not a Decimal")
            try:
                return fit(value)
            except ValueError as error:
                raise ValueError(f"is {value}, which {error}") from None

        return check

    def default(self, value: Any) -> Json:
        sign, digits, _ = self._precision.fit(value).as_tuple()
        unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)  # without a context, which could round
        return unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True).decode("latin-1")


def itself(value: Any) -> Any:
    """For what is in order as it is."""
    return value
