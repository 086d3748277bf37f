"""What is wrong with the lines of a source, said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graftune.errors import GraftuneError

SHOWN = 5  # bad lines quoted in one message; the rest are counted


def refuse(source: str, problems: Mapping[int, str], lines: int, share: float, expected: str) -> None:
    """Raise GraftuneError where more than `share` of the lines are bad."""
    if len(problems) > share * lines:
        raise bad_lines(source, problems, expected)


def bad_lines(source: str, problems: Mapping[int, str], expected: str = "") -> GraftuneError:
    """One error for all bad lines of a source: the first ones in full, then how many more."""
    return GraftuneError(
        f"{source}: {len(problems)} bad line{'s' if len(problems) > 1 else ''}",
        received=("\n" + " " * len("  received: ")).join(described(problems)),
        expected=expected or row_with(("input", "target")),
        do="correct or delete these lines, or raise bad_rows, the share that may be left out",
    )


def described(problems: Mapping[int, str]) -> list[str]:
    """The first problems with their lines, then how many more there are."""
    shown = [f"line {line}: {problems[line]}" for line in sorted(problems)[:SHOWN]]
    more = len(problems) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def row_with(columns: Iterable[str]) -> str:
    """What a good line has."""
    return "on every line one row with " + " and ".join(columns) + ", not empty"
