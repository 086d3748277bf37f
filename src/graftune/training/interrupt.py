"""Ctrl-C during training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step: in the middle of one there is no state to go on from.

    Yields a function that tells whether it was pressed; pressed again, it stops the block at once.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may set a handler, and an ignored signal stays ignored.
    held = threading.current_thread() is threading.main_thread() and callable(before)
    if held:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        if held:
            signal.signal(signal.SIGINT, before)
