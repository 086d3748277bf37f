"""Errors a user can act on: what was received, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraftuneError(Exception):
    """A mistake in what the user gave; the CLI prints its message and exits with 2.

    `problem` is its first line, `received` what was given.
    """

    def __init__(self, problem: str, *, received: object = None, expected: object = None, do: str = "") -> None:
        self.problem, self.received, self.expected, self.do = problem, received, expected, do
        lines = [problem]
        if received is not None:
            lines.append(f"  received: {received}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if do:
            lines.append(f"  what to do: {do}")
        super().__init__("\n".join(lines))

    def at(self, place: str) -> GraftuneError:
        """The same error, that says where."""
        return GraftuneError(f"{place}: {self.problem}", received=self.received, expected=self.expected, do=self.do)


def unknown(kind: str, name: str, known: Iterable[str]) -> GraftuneError:
    """The error for a name that is not among the known ones, with the nearest one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return GraftuneError(
        f"unknown {kind} {name!r}",
        received=repr(name),
        expected="one of " + ", ".join(names) if names else f"no {kind} exists yet",
        do=f"did you mean {near[0]!r}?" if near else f"choose a {kind} from the list",
    )
