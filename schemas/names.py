"""Names that may stand in Avro, in ClickHouse and in a topic alike."""

from __future__ import annotations

import re
from typing import Any

from .errors import DeclarationError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}", re.ASCII)
_CONTEXT = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def wire_name(cls: type[Any]) -> str:
    """The name that stands for the class in the log; `class Gone(Event, wire_name="Departed")` keeps an old one."""
    name: str = cls.__wire_name__
    return name


def check_name(name: str, *, of: str) -> None:
    """Raise DeclarationError unless `name` is a letter followed by at most 62 letters, digits or underscores.

    A leading underscore is kept for the envelope's own columns (`_id`, `_version`, …).
    """
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"The {of} has the name {name!r}, which cannot stand in Avro and ClickHouse.",
            cure="Use a letter, then up to 62 letters, digits or underscores.",
            name=name,
        )


def check_context(name: str) -> None:
    """Raise DeclarationError unless `name` can be a Pulsar namespace and a ClickHouse database."""
    if not _CONTEXT.fullmatch(name) or name in {"system", "default", "information_schema", "magnetar"}:
        raise DeclarationError(
            f"A pipeline cannot be called {name!r}.",
            cure="Use a lower-case letter, then up to 62 lower-case letters, digits or underscores; "
            "`system`, `default`, `information_schema` and `magnetar` are taken.",
            name=name,
        )


def kebab(name: str) -> str:
    """`UserAccount` → `user-account`: how a class's name stands in a topic's."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower()
