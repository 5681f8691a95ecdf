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
    `fault` says whose it is, and `retry_is_safe` whether the same again, with nothing changed, can help, and does
    nothing twice. docs/errors.md has a section for each; `magnetar explain` shows it.
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
    """A class, module or pipeline that cannot mean anything: it has to be changed.

    What to do: the message names the class, the field or the file with its line. Correct it there; nothing has run yet.
    """

    fault = Fault.YOURS


class SettingsError(MagnetarError):
    """A setting, an argument or a name that does not fit.

    What to do: the message says which one, and what would fit. Nothing was changed.
    """

    fault = Fault.YOURS


class MessageRefused(MagnetarError):
    """A command that cannot be sent as it is: nothing was published.

    What to do: correct the field, the id or the size that the message names, and send the command again.
    """

    fault = Fault.YOURS


class QueryRefused(MagnetarError):
    """A query that the engine does not take.

    What to do: ClickHouse's own words stand in the message. Queries only read: whatever would write is refused too.
    """

    fault = Fault.YOURS


class DataFolderError(MagnetarError):
    """The data folder cannot be used: read-only, full, in use, foreign, newer or damaged.

    What to do: make the folder usable (the message says how), or choose another with --data or MAGNETAR_DATA. What was
    acknowledged stays where it is; an incomplete folder is restored as a whole, never file by file.
    """

    fault = Fault.WORLD


class LogUnavailable(MagnetarError):
    """The log does not answer, or a topic of it is missing.

    What to do: see whether the broker runs, or run the pipeline once so that its topics are made; then try again.
    """

    fault = Fault.WORLD
    retry_is_safe = True


class AccessDenied(LogUnavailable):
    """The log does not take the token, or the role may not do what was asked.

    What to do: set a token that is valid (the message says what is wrong with this one), or have `magnetar provision`
    give the role its rights.
    """


class LogUnsafe(MagnetarError):
    """The log's settings would lose what is written to it, or let others spoil it: nothing was written.

    What to do: run `magnetar doctor`, which says what mends each of them, or `magnetar provision`, which mends most.
    """

    fault = Fault.WORLD


class OutcomeUnknown(MagnetarError):
    """Something was sent and not confirmed in time: it may stand in the log, or may yet.

    What to do: send the same command again under the same command id. An id is decided once, and the first outcome is
    answered. Under a new id the command could be carried out twice.
    """

    fault = Fault.WORLD
    retry_is_safe = True  # with the same command id


class OwnershipLost(MagnetarError):
    """Another worker took the partition over: nothing appended after that counts.

    What to do: nothing. The worker lets go of the partition, and its commands are decided by the one that has it now.
    """

    fault = Fault.WORLD
    retry_is_safe = True


class PartitionRefused(MagnetarError):
    """This code cannot go on with a partition without deciding wrongly.

    What to do: deploy the code that knows the event or field that the message names, or mend the `apply` that it says
    has raised. The other partitions go on, and the commands of this one wait on their topic.
    """

    fault = Fault.YOURS


class Undecodable(MagnetarError):
    """Bytes that are not what the schema says.

    What to do: find out who wrote them, and with which schema. Commands like that are parked, and hold nothing up.
    """

    fault = Fault.YOURS


class StoreUnavailable(MagnetarError):
    """ClickHouse does not answer, or refuses what it should take.

    What to do: see whether ClickHouse runs and has room. Commands are decided meanwhile; the tables catch up.
    """

    fault = Fault.WORLD
    retry_is_safe = True


class TablesBehind(MagnetarError):
    """The tables have not come to the position that was asked for; what was written there is in the log.

    What to do: wait for longer, or take what is there (`fields` says how far it is, and how old). If it stays behind,
    see whether a projector runs: `magnetar status` says how far each projection is.
    """

    fault = Fault.WORLD
    retry_is_safe = True


class LeaseLost(MagnetarError):
    """Another projector writes this table partition: nothing was inserted.

    What to do: nothing. The projector takes the partition back when its new owner is gone.
    """

    fault = Fault.WORLD
    retry_is_safe = True
