"""Candidates: what a comparison compares. A method may stand in it several times, with other options each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from graftune.config.recipe import Recipe
from graftune.config.sections import TRAINING_KEYS, checked_sections
from graftune.config.written import scalar, split
from graftune.errors import GraftuneError, unknown
from graftune.methods.method import PRESETS, Method, make

WRITTEN = re.compile(r"(?P<name>[\w-]+)(?:\((?P<options>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class Candidate:
    """A method with its options, and what of its training is its own (`lr`, `rates`); `label` is how it was named."""

    label: str
    method: Method
    training: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with the candidate's own training over it."""
        if not self.training:
            return recipe
        name = self.method.preset
        sections = {**recipe.sections, name: {**recipe.sections.get(name, {}), **self.training}}
        return recipe.model_copy(update={"sections": sections})


def candidate(given: Method | str, recipe: Recipe) -> Candidate:
    """From a method, its name, or a name with options, `lora(rank=64, lr=1e-3)`; these go over the recipe's.

    Raises GraftuneError for unknown names and options, and values of another type.
    """
    if isinstance(given, Method):
        return Candidate(given.preset, given)
    found = WRITTEN.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        raise GraftuneError(
            "a candidate cannot be read",
            received=repr(given),
            expected="a method, such as lora, or one with options, lora(rank=64, lr=1e-3)",
            do="close the brackets, and write options as key=value",
        )
    name, own = found["name"], _options(given, found["options"] or "")
    if name not in PRESETS:
        raise unknown("method", name, PRESETS)
    checked = checked_sections({name: own})[name] if own else {}
    options = {key: value for key, value in checked.items() if key not in TRAINING_KEYS}
    training = {key: value for key, value in checked.items() if key in TRAINING_KEYS}
    return Candidate(given.strip(), make(name, **{**recipe.section(name), **options}), training)


def _label(method: Method, recipe: Recipe) -> str:
    """The method's name, with the options that differ from what the recipe makes of the name alone."""
    if method.preset not in PRESETS:
        return method.preset
    usual = make(method.preset, **recipe.section(method.preset)).describe()
    own = {key: value for key, value in method.describe().items() if value != usual[key]}
    return method.preset + (f"({', '.join(f'{key}={_written(value)}' for key, value in own.items())})" if own else "")


def _written(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def candidates(given: Sequence[Method | str], recipe: Recipe) -> list[Candidate]:
    """All of them; a method that stands there several times is labelled with its options.

    Raises GraftuneError for none, and for one label twice: results are kept by it.
    """
    found = [candidate(one, recipe) for one in given]
    names = [one.method.preset for one in found]
    found = [
        replace(one, label=_label(method, recipe)) if isinstance(method, Method) and names.count(name) > 1 else one
        for one, method, name in zip(found, given, names, strict=True)
    ]
    labels = [one.label for one in found]
    if not labels or len(set(labels)) < len(labels):
        raise GraftuneError(
            "compare needs methods, each once",
            received=", ".join(labels) or "none",
            expected="different methods, or one with other options: lora, lora(rank=64)",
            do="leave one out, or give it other options",
        )
    for first, second in combinations(found, 2):
        if (first.method, first.training) == (second.method, second.training):
            raise GraftuneError(
                "two candidates are the same",
                received=f"{first.label} and {second.label}",
                expected="candidates that differ in an option or a rate",
                do="leave one out",
            )
    return found


def _options(given: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in split(text) if text.strip() else ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise GraftuneError(
                "an option of a candidate is written key=value",
                received=f"{part!r} in {given}",
                expected="such as rank=64",
                do=f"write {part.strip() or 'it'}=VALUE, or leave it out",
            )
        found[key.strip()] = scalar(value.strip())
    return found
