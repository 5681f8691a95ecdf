"""The vocabulary of Magnetar: messages, errors, the log's format. It imports nothing else of ours."""

from .errors import (
    AccessDenied,
    DataFolderError,
    DeclarationError,
    Fault,
    LeaseLost,
    LogUnavailable,
    LogUnsafe,
    MagnetarError,
    MessageRefused,
    OutcomeUnknown,
    OwnershipLost,
    PartitionRefused,
    QueryRefused,
    SettingsError,
    StoreUnavailable,
    TablesBehind,
    Undecodable,
)
from .ids import is_uuid7, made_at_ms, uuid7, why_bad_aggregate_id
from .messages import Command, Event, Immutable, Message, Meta, Rejection, State
from .names import wire_name
from .precision import Precision
from .read_rule import ReadRule, Verdict
from .routing import murmur3_32, partition_of
from .topics import MessageId, Position, Topic, TopicKind

__all__ = [
    "AccessDenied",
    "Command",
    "DataFolderError",
    "DeclarationError",
    "Event",
    "Fault",
    "Immutable",
    "LeaseLost",
    "LogUnavailable",
    "LogUnsafe",
    "MagnetarError",
    "Message",
    "MessageId",
    "MessageRefused",
    "Meta",
    "OutcomeUnknown",
    "OwnershipLost",
    "PartitionRefused",
    "Position",
    "Precision",
    "QueryRefused",
    "ReadRule",
    "Rejection",
    "SettingsError",
    "State",
    "StoreUnavailable",
    "TablesBehind",
    "Topic",
    "TopicKind",
    "Undecodable",
    "Verdict",
    "is_uuid7",
    "made_at_ms",
    "murmur3_32",
    "partition_of",
    "uuid7",
    "why_bad_aggregate_id",
    "wire_name",
]
