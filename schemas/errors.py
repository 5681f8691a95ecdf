"""The errors of the framework. Any room may raise them; a rejection is not one of them."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fault(Enum):
    """Whose fault an error is."""

    YOURS = "yours"
    WORLD = "the world's"
    OURS = "ours"


class MagnetarError(Exception):
    """The root of all errors that Magnetar raises on purpose.

    `what` says what happened and to which thing, `cure` what to do next; `fields` carries the same facts for programs.
    """

    fault: ClassVar[Fault] = Fault.OURS
    retry_is_safe: ClassVar[bool] = False

    def __init__(self, what: str, *, cure: str = "", **fields: object) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.what} {self.cure}".rstrip()


class DeclarationError(MagnetarError):
    """A class, module or pipeline that cannot mean anything: it has to be changed."""

    fault = Fault.YOURS


class SettingsError(MagnetarError):
    """A setting, an argument or a name that does not fit."""

    fault = Fault.YOURS


class MessageRefused(MagnetarError):
    """A command that cannot be sent as it is: nothing was published."""

    fault = Fault.YOURS


class QueryRefused(MagnetarError):
    """A query that the engine does not take."""

    fault = Fault.YOURS


class DataFolderError(MagnetarError):
    """The data folder cannot be used: read-only, full, in use, foreign, newer or damaged."""

    fault = Fault.WORLD


class LogUnavailable(MagnetarError):
    """The log does not answer, or a topic of it is missing."""

    fault = Fault.WORLD
    retry_is_safe = True


class OutcomeUnknown(MagnetarError):
    """Something was sent and not confirmed in time: it may stand in the log, or may yet."""

    fault = Fault.WORLD
    retry_is_safe = True  # with the same command id


class OwnershipLost(MagnetarError):
    """Another worker took the partition over: nothing appended after that counts."""

    fault = Fault.WORLD


class PartitionRefused(MagnetarError):
    """This code cannot go on with a partition without deciding wrongly."""

    fault = Fault.YOURS


class Undecodable(MagnetarError):
    """Bytes that are not what the schema says."""

    fault = Fault.YOURS


class StoreUnavailable(MagnetarError):
    """ClickHouse does not answer, or refuses what it should take."""

    fault = Fault.WORLD
    retry_is_safe = True


class LeaseLost(MagnetarError):
    """Another projector writes this table partition: nothing was inserted."""

    fault = Fault.WORLD
