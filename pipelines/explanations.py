"""What each error means, from the classes themselves: `magnetar explain` prints it, docs/errors.md says more."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from magnetar.schemas import Fault, MagnetarError, SettingsError

_HOMES: Final = (
    "magnetar.schemas.errors",
    "magnetar.schemas.command_message",
    "magnetar.schemas.derivation",
    "magnetar.pipelines.receipt",
    "magnetar.pipelines.transitions",
)
"""The modules that define errors. A test compares what they define with what all modules do."""

_FAULTS = {
    Fault.YOURS: "yours: something has to be corrected",
    Fault.WORLD: "the world's: something outside of Magnetar and of your code does not work",
    Fault.OURS: "ours: please report it",
}


def leaves() -> dict[str, type[MagnetarError]]:
    """Every error that Magnetar raises on purpose, by its name."""
    for module in _HOMES:
        import_module(module)
    found = {error.__name__: error for error in _below(MagnetarError) if error.__module__ in _HOMES}
    return dict(sorted(found.items()))


def explanation(name: str) -> str:
    """One error explained. Raises SettingsError for a name that no error has."""
    known = leaves()
    if name not in known:
        raise SettingsError(f"There is no error {name!r}.", cure="`magnetar explain` lists them all.")
    error = known[name]
    return f"{name}\n\n{inspect.getdoc(error)}\n\n{fault_line(error)}\n{retry_line(error)}"


def fault_line(error: type[MagnetarError]) -> str:
    """Whose fault it is."""
    return f"Fault: {_FAULTS[error.fault]}."


def retry_line(error: type[MagnetarError]) -> str:
    """Whether trying again is safe."""
    safe = "safe, and can help" if error.retry_is_safe else "of no use until something is changed"
    return f"Trying again: {safe}."


def _below(error: type[MagnetarError]) -> Iterator[type[MagnetarError]]:
    for each in error.__subclasses__():
        yield each
        yield from _below(each)
