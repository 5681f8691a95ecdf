"""Where the user's code is just now, on any thread: what a process says that does not come round."""

from __future__ import annotations

import sys
import threading
import traceback
from types import FrameType

from magnetar.aggregates.raised import module_of, place_of


def under_way() -> list[str]:
    """`Board.apply at shop/board.py:17`: each function of the user's that has not come back,
    with the line that it is at."""
    own = threading.get_ident()
    # Documented, underscore and all, for finding what hangs; nothing public gives the frames of other threads.
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    found = (_called(frame) for thread, frame in frames.items() if thread != own)
    return sorted({each for each in found if each})


def _called(innermost: FrameType) -> str:
    """What the last of Magnetar's own functions on a stack has called, if that is the user's."""
    stack = [frame for frame, _ in traceback.walk_stack(innermost)]  # the innermost first
    ours = next((index for index, frame in enumerate(stack) if module_of(frame).startswith("magnetar.")), 0)
    return _said(stack[ours - 1]) if ours and _is_users(stack[ours - 1]) else ""


def _is_users(frame: FrameType) -> bool:
    module = module_of(frame).partition(".")[0]
    return module not in sys.stdlib_module_names and "site-packages" not in frame.f_code.co_filename


def _said(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} at {place_of(frame)}:{frame.f_lineno}"
