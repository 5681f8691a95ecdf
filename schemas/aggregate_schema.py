"""The schemas of one aggregate's topics: its commands' and its commits', derived from the classes it declares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .derivation import record_schema
from .errors import DeclarationError
from .field_type import UNKNOWN_SYMBOL, Json
from .messages import Command, Event, Message, Rejection
from .names import kebab, wire_name

UUID: Json = {"type": "string", "logicalType": "uuid"}
AT: Json = {"type": "long", "logicalType": "timestamp-micros"}
OUTCOMES = ("accepted", "nothing", "rejected", "parked", "claim")


class AggregateSchema:
    """What stands on the topics of one aggregate in one context; docs/wire-format.md describes it for everybody.

    Types are ordered by their wire name, so that moving one within its annotation makes no new schema.
    """

    def __init__(
        self,
        context: str,
        aggregate: str,
        *,
        commands: Sequence[type[Command]],
        events: Sequence[type[Event]],
        rejections: Sequence[type[Rejection]],
    ) -> None:
        self.context = context
        self.aggregate = aggregate
        self.namespace = f"{context}.{kebab(aggregate).replace('-', '_')}"
        self.commands: dict[str, type[Command]] = _by_wire_name(commands, aggregate)
        self.events: dict[str, type[Event]] = _by_wire_name(events, aggregate)
        self.rejections: dict[str, type[Rejection]] = _by_wire_name(rejections, aggregate)
        self.command_schema = self._command()
        self.commit_schema = self._commit()
        self.command_json = json.dumps(self.command_schema)
        self.commit_json = json.dumps(self.commit_schema)

    def record(self, cls: type[Message]) -> Json:
        """The record of one of the aggregate's message classes."""
        kind = "command" if issubclass(cls, Command) else "event" if issubclass(cls, Event) else "rejection"
        return record_schema(cls, namespace=f"{self.namespace}.{kind}")

    def _optionals(self, classes: dict[str, Any]) -> list[Json]:
        if "type" in classes:
            raise DeclarationError(
                f"{self.aggregate} has a {classes['type'].__qualname__} called 'type' on the wire, as is the field "
                "that says which type a record has.",
                cure="Call it something else.",
            )
        return [{"name": name, "type": ["null", self.record(cls)], "default": None} for name, cls in classes.items()]

    def _type_enum(self, name: str, classes: dict[str, Any]) -> Json:
        symbols = [UNKNOWN_SYMBOL, *classes]
        return {"name": "type", "type": {"type": "enum", "name": name, "symbols": symbols, "default": UNKNOWN_SYMBOL}}

    def _command(self) -> Json:
        envelope: list[Json] = [
            {"name": "aggregate_id", "type": "string"},
            {"name": "command_id", "type": UUID},
            {"name": "correlation_id", "type": ["null", UUID], "default": None},
            {"name": "causation_id", "type": ["null", UUID], "default": None},
            {"name": "actor", "type": ["null", "string"], "default": None},
            {"name": "issued_at", "type": AT},
            {"name": "expected_version", "type": ["null", "long"], "default": None},
            {"name": "reply_to", "type": ["null", "string"], "default": None},
            {"name": "metadata", "type": {"type": "map", "values": "string"}, "default": {}},
            {"name": "producer", "type": ["null", "string"], "default": None},
            {"name": "sequence", "type": ["null", "long"], "default": None},
            self._type_enum("CommandType", self.commands),
        ]
        if taken := {str(field["name"]) for field in envelope} & set(self.commands):
            raise DeclarationError(
                f"A command of {self.aggregate} is called {taken.pop()!r}, as is a field of every command's envelope.",
                cure="Call it something else.",
            )
        return self._message("Command", [*envelope, *self._optionals(self.commands)])

    def _commit(self) -> Json:
        source = [
            {"name": "ledger", "type": "long"},
            {"name": "entry", "type": "long"},
            {"name": "batch", "type": "long"},
            {"name": "published_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "incarnation", "type": UUID},
        ]
        parked = [
            {"name": "reason", "type": "string"},
            {"name": "detail", "type": "string"},
            {"name": "command", "type": ["null", "bytes"], "default": None},
            {"name": "sha256", "type": ["null", "bytes"], "default": None},
        ]
        rejection = [self._type_enum("RejectionType", self.rejections), *self._optionals(self.rejections)]
        event = [self._type_enum("EventType", self.events), *self._optionals(self.events)]
        fields = [
            {"name": "number", "type": "long"},
            {"name": "owner", "type": {"type": "fixed", "name": "Owner", "size": 16}},
            {"name": "aggregate_id", "type": "string"},
            {"name": "version", "type": "long"},
            {"name": "command_id", "type": UUID},
            {"name": "correlation_id", "type": ["null", UUID], "default": None},
            {"name": "causation_id", "type": ["null", UUID], "default": None},
            {"name": "actor", "type": ["null", "string"], "default": None},
            {"name": "at", "type": AT},
            {"name": "metadata", "type": {"type": "map", "values": "string"}, "default": {}},
            {"name": "source", "type": {"type": "record", "name": "Source", "fields": source}},
            {"name": "producer", "type": ["null", "string"], "default": None},
            {"name": "sequence", "type": ["null", "long"], "default": None},
            {"name": "outcome", "type": {"type": "enum", "name": "Outcome", "symbols": list(OUTCOMES)}},
            {
                "name": "rejection",
                "type": ["null", {"type": "record", "name": "Rejection", "fields": rejection}],
                "default": None,
            },
            {
                "name": "parked",
                "type": ["null", {"type": "record", "name": "Parked", "fields": parked}],
                "default": None,
            },
            {"name": "resolves", "type": ["null", UUID], "default": None},
            {
                "name": "events",
                "type": {"type": "array", "items": {"type": "record", "name": "Event", "fields": event}},
                "default": [],
            },
        ]
        return self._message("Commit", fields)

    def _message(self, name: str, fields: list[Json]) -> Json:
        return {"type": "record", "name": name, "namespace": self.namespace, "fields": fields}


def _by_wire_name(classes: Sequence[type[Any]], aggregate: str) -> dict[str, type[Any]]:
    named: dict[str, type[Any]] = {}
    for cls in sorted(classes, key=wire_name):
        other = named.setdefault(wire_name(cls), cls)
        if other is not cls:
            raise DeclarationError(
                f"{aggregate} has two types called {wire_name(cls)!r} on the wire: "
                f"{other.__module__}.{other.__qualname__} and {cls.__module__}.{cls.__qualname__}.",
                cure="Rename one of them.",
            )
    return named
