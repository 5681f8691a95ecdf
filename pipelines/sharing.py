"""Which partitions of which tables a projector feeds, where several feed the tables of one server.

The log shares them out, as it does among workers. That is liveness and balance; safety is the lease of each partition
of each table.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final

import structlog
from magnetar.schemas import LogUnavailable, MagnetarError

from .log import Share, SharesOut
from .pipeline import Pipeline
from .projector_group import Group

LOOK_SECONDS: Final = 0.5
"""How often the log is asked. On the embedded log it is the sign of life too, which may be three seconds old."""


class Sharing:
    """Asks on a thread of its own, so that a long range is no sign of death."""

    def __init__(self, pipeline: Pipeline, log: SharesOut, name: str, group: Group) -> None:
        """Takes part, among those of the group. Raises LogUnavailable, but for what another context has not made yet:
        that is waited for."""
        self.tables = group.tables
        """The names of the targets that this one feeds."""
        self._pipeline, self._log, self._name = pipeline, log, name
        self._abroad = "-".join(filter(None, (pipeline.name, group.key)))
        """What the group is called on topics of other contexts, which have groups of their own."""
        self._awaited = [each for each in group.aggregates if each not in pipeline.aggregates]
        self._logger = structlog.get_logger("magnetar.projector").bind(context=pipeline.name)
        self._shares: dict[str, Share] = {}
        self._mine: dict[str, frozenset[int]] = {}
        self._stop = threading.Event()
        try:
            for aggregate in group.aggregates:
                if aggregate not in self._awaited:
                    topic = pipeline.events_of(aggregate).topic
                    self._shares[aggregate] = log.share(topic, name=name, group=group.key)
            self._look()
        except BaseException:
            self._close_shares()
            raise
        self._thread = threading.Thread(target=self._run, name="magnetar-sharing", daemon=True)
        self._thread.start()

    def mine(self, aggregate: str) -> frozenset[int]:
        """The partitions of the aggregate that were this one's when the log was asked last."""
        return self._mine.get(aggregate, frozenset())

    def close(self) -> None:
        """Leave all partitions to others."""
        self._stop.set()
        self._thread.join()
        self._close_shares()

    def _close_shares(self) -> None:
        for share in self._shares.values():
            share.close()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with contextlib.suppress(MagnetarError):  # while the log does not answer, nothing moves
                self._look()

    def _look(self) -> None:
        for aggregate in list(self._awaited):
            topic = self._pipeline.events_of(aggregate).topic
            with contextlib.suppress(LogUnavailable):
                self._shares[aggregate] = self._log.share(topic, name=self._name, group=self._abroad)
                self._awaited.remove(aggregate)
        for aggregate, share in self._shares.items():
            found = share.mine()
            if found != self._mine.get(aggregate):
                self._logger.info("partitions shared out", aggregate=aggregate, mine=sorted(found))
            self._mine[aggregate] = found
