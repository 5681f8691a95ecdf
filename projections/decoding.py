"""Who decodes the commits of a range: ClickHouse, from their Avro, or Python, where ClickHouse cannot."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from .columns import structure
from .container import container
from .decoding_trial import misreading
from .row_binary import FORMAT, CommitRows
from .store import Store


class Decoding(StrEnum):
    """What `MAGNETAR_DECODING` may say."""

    TRIED = "tried"
    """ClickHouse, if it reads made-up commits of the schema as they were written; otherwise Python."""
    ENGINE = "engine"
    """ClickHouse, whatever it makes of them."""
    PYTHON = "python"
    """Python."""


class Framed(NamedTuple):
    """The commits of a range as one block."""

    parts: Iterable[bytes]
    structure: str
    format: str


_FORCED: Final = "MAGNETAR_DECODING"


class Decoder:
    """Makes blocks of commits, for every table that ClickHouse itself fills from them. Safe to share between threads.

    The statements that read a block are the same whoever decodes it, and so are its rows: a range that was inserted in
    one way and is inserted again in the other is still found by its token.
    """

    def __init__(self, store: Store, folder: Path, decoding: Decoding = Decoding.TRIED) -> None:
        """`folder` takes what is tried."""
        self._store = store
        self._folder = folder
        self._decoding = decoding
        self._in_python: dict[str, CommitRows | None] = {}
        self._choosing = threading.Lock()
        self._logger = structlog.get_logger("magnetar.projector")

    def framed(self, schema_text: str, payloads: Sequence[bytes]) -> Framed:
        """A block of commits of one schema, for which it is tried once who can decode it.

        Raises StoreUnavailable if a server does not answer, and PartitionRefused, when the parts are made, for bytes
        that are no commit.
        """
        rows = self._rows(schema_text)
        if rows is None:
            return Framed(container(schema_text, payloads), structure(json.loads(schema_text)), "Avro")
        return Framed(rows.rows(payloads), structure(rows.schema), FORMAT)

    def _rows(self, schema_text: str) -> CommitRows | None:
        with self._choosing:
            if schema_text not in self._in_python:
                self._in_python[schema_text] = self._chosen(schema_text)
            return self._in_python[schema_text]

    def _chosen(self, schema_text: str) -> CommitRows | None:
        writer = json.loads(schema_text)
        if self._decoding is Decoding.TRIED:
            file = self._folder / f"{secrets.token_hex(8)}-tried.block"
            why = misreading(self._store, schema_text, file)
        else:
            why = f"{_FORCED}={self._decoding}"
        if why is None or self._decoding is Decoding.ENGINE:
            return None
        self._logger.warning("decoding", by="python", schema=f"{writer['namespace']}.{writer['name']}", why=why)
        return CommitRows(writer)
