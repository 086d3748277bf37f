"""What fits what, as observed: every method tried on every family, and the page that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers

from all_families import FAMILIES, shared
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, VARIANTS, disturb

PAGE = Path(__file__).parents[1] / "docs" / "support.md"
#: Four rows: two adapters of one method, and the plain base.
MIXED = ("a", None, "b", "a")


@dataclass(frozen=True)
class Support:
    """Why a method cannot be used on a family, or (``unshared``) only by all rows of a batch; empty if it can."""

    refused: str = ""
    unshared: str = ""


def put(model: AdaptedModel, method: str) -> None:
    """Two different adapters of a method, "a" and "b", both away from their start."""
    for name, seed in (("a", 0), ("b", 3)):
        model.add(name, METHODS[method], seed=seed)
        disturb(model, name, seed=7 + seed, size=0.05)


@cache
def observed(family: str, method: str) -> Support:
    """What the method says when it is tried."""
    with shared(family) as model:
        try:
            put(model, method)
        except GraftuneError as error:
            return Support(refused=str(error))
        try:
            with torch.no_grad():
                model(**FAMILIES[family].inputs(), adapters=MIXED)
        except GraftuneError as error:
            return Support(unshared=str(error))
    return Support()


def fits(family: str, method: str) -> bool:
    return not observed(family, method).refused


def shares(family: str, method: str) -> bool:
    """Whether rows of a batch may use the method beside others."""
    return observed(family, method) == Support()


@contextmanager
def fitted(family: str, method: str) -> Iterator[AdaptedModel]:
    """The family's model with two adapters of the method; a test of a method that does not fit is skipped."""
    if refused := observed(family, method).refused:
        pytest.skip(refused.splitlines()[0])
    with shared(family) as model:
        put(model, method)
        yield model


# The page ---------------------------------------------------------------------------------------------------

HEAD = """# Support

Which method fits which model family. A run of the tests tries every method on a tiny random model of every family,
checks all [laws](../CONTRIBUTING.md#laws) on those that fit, and compares this page with what it saw;
`pytest tests/test_support.py --write-support` writes the page.
Tested with torch {torch} and transformers {transformers}.

- **yes**: fits, and any row of a batch may use it beside any other adapter.
- **alone**: fits, but only for all rows of a batch at once; the letter leads to the reason.
- **no**: refused when the adapter is made; the number leads to the reason.
"""


def columns() -> list[str]:
    """The presets, and the variants of them that some family takes otherwise."""

    def differs(name: str) -> bool:
        preset = METHODS[name].preset
        return any(_word(observed(f, name)) != _word(observed(f, preset)) for f in FAMILIES)

    return [name for name in METHODS if name in PRESETS or differs(name)]


def page() -> str:
    """The page as this run saw things."""
    methods = columns()
    reasons: dict[str, dict[str, dict[str, str]]] = {"no": {}, "alone": {}}  # problem -> family -> what was received

    def cell(family: str, method: str) -> str:
        seen = observed(family, method)
        word = _word(seen)
        if word == "yes":
            return word
        problem, received, *_ = (line.strip() for line in (seen.refused or seen.unshared).splitlines())
        reasons[word].setdefault(problem, {}).setdefault(family, received.removeprefix("received: "))
        return f"{word} {_mark(word, list(reasons[word]).index(problem))}"

    def row(family: str) -> str:
        cells = [family, FAMILIES[family].model.__name__, *(cell(family, method) for method in methods)]
        return f"| {' | '.join(cells)} |"

    lines = [
        HEAD.format(torch=torch.__version__.split("+")[0], transformers=transformers.__version__),
        f"| family | tested as | {' | '.join(f'`{method}`' for method in methods)} |",
        "|" + "---|" * (2 + len(methods)),
        *map(row, FAMILIES),
        "",
        *(f"`{name}` is `{VARIANTS[name][0]}` with {_options(name)}.  " for name in methods if name in VARIANTS),
    ]
    for word, title in (("no", "Refused"), ("alone", "Fits, but cannot share a batch with other adapters")):
        lines += ["", f"## {title}", ""]
        for number, (problem, families) in enumerate(reasons[word].items()):
            lines.append(f"- **{_mark(word, number)}** {problem}")
            lines += [f"  - {family}: {received}" for family, received in families.items()]
    return "\n".join(lines) + "\n"


def _word(seen: Support) -> str:
    return "no" if seen.refused else "alone" if seen.unshared else "yes"


def _mark(word: str, number: int) -> str:
    return str(1 + number) if word == "no" else "abcdefgh"[number]


def _options(name: str) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in VARIANTS[name][1].items() if key != "length")


def without_versions(text: str) -> str:
    """The page without the line that names versions."""
    return "\n".join(line for line in text.splitlines() if "Tested with torch" not in line)
