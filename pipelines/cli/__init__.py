"""The command line: `magnetar`. It parses and prints; what it does stands in the other modules."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; `EXIT_CODES` in `.shared` says what it ends with.

    Ctrl-C ends a command at once, without a word, until a command that runs for long has a way of its own to stop. Set
    before anything else is imported, because people press it early too.
    """
    signal.signal(signal.SIGINT, _interrupted)
    from .app import run

    run()


def _interrupted(*_: object) -> None:
    raise SystemExit(130)
