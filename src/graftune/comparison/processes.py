"""Trials in processes of their own: what one holds or breaks is no other's, and peak memory is that of the trial."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Self

from graftune.comparison import trial
from graftune.comparison.assignment import Assignment, Tell, quiet


class Processes:
    """Runs a trial in a fresh process; any number of threads may do so at once.

    Where the system can, processes are forked from a server that has imported everything and computed nothing.
    """

    def __init__(self) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload([trial.__name__])
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self._ended = False

    def __call__(self, assignment: Assignment, tell: Tell = quiet) -> dict[str, Any]:
        """The line of a trial. That its process was killed is the line's error."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_serve, args=(assignment, theirs))
        with self._lock, _no_main():
            if self._ended:
                return assignment.broken("it was not begun")
            process.start()
            self._running.add(process)
        theirs.close()
        try:
            while not isinstance(told := ours.recv(), dict):
                tell(*told)
        except EOFError:
            process.join()
            told = assignment.broken(f"its process ended with {_ending(process.exitcode)}")
        finally:
            ours.close()
            process.join()
            with self._lock:
                self._running.discard(process)
        return told

    def __enter__(self) -> Self:
        """Start what processes are forked from, which takes seconds that are no trial's."""
        with _no_main():
            first = self._context.Process(target=_nothing)
            first.start()
        first.join()
        return self

    def __exit__(self, *_: object) -> None:
        """End what is running."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()


def _nothing() -> None:
    """A process that only starts."""


def _serve(assignment: Assignment, ours: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a trial ends
    gc.freeze()  # what was imported is not looked through again before a peak of memory is measured
    try:
        ours.send(trial.run(assignment, lambda *told: ours.send(told)))
    except BrokenPipeError:
        return  # nobody is there any more


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return name + (", as where memory runs out" if name == "SIGKILL" else "")
    return f"exit status {code}"


@contextmanager
def _no_main() -> Iterator[None]:
    """Within the block a process that starts does not run the calling script: it needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
