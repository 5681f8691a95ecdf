"""The command line: `magnetar`. It parses and prints; what it does stands in the other modules."""

from __future__ import annotations

import signal

__all__ = ["main"]


interrupts: list[int] = []
"""The Ctrl-C that came: a library that is being imported can make another error of the end that follows."""


def main() -> None:
    """Run the command line; `EXIT_CODES` in `.shared` says what it ends with.

    Ctrl-C ends a command at once, without a word, until a command that runs for long has a way of its own to stop. Set
    before anything else is imported, because people press it early too.
    """
    signal.signal(signal.SIGINT, _interrupted)
    from .app import run

    try:
        run()
    finally:  # Python that is ending would report the handler's exception, and ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupted(number: int, _: object) -> None:
    interrupts.append(number)
    raise SystemExit(130)
