"""Recipes: everything a run depends on, as strict data that YAML and the command line fill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from graftune.config.keys import GROUPS, KEYS, Compare, Data, General, Memory, Training, group_of
from graftune.config.sections import (
    TRAINING_KEYS,
    bad_value,
    check_method,
    checked_sections,
    option_types,
    section_names,
)
from graftune.config.written import read_yaml, scalar
from graftune.errors import GraftuneError, unknown

if TYPE_CHECKING:
    from graftune.methods.method import Method


class Recipe(General, Data, Training, Memory):
    """What to train on what, for how long. ``sections`` holds options per method and per task."""

    compare: Compare = Field(default_factory=Compare)
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if self.max_steps is not None and self.epochs is not None:
            raise GraftuneError(
                "max_steps and epochs exclude each other",
                received=f"max_steps={self.max_steps}, epochs={self.epochs:g}",
                expected="one of them",
                do="leave one out",
            )
        return self

    def section(self, name: str) -> dict[str, Any]:
        """The options of one method or task, without those of training."""
        return {k: v for k, v in self.sections.get(name, {}).items() if k not in TRAINING_KEYS}

    def rates_of(self, preset: str) -> dict[str, float]:
        """The method's own factors on the learning rate, by a pattern in a parameter's name."""
        return dict(self.sections.get(preset, {}).get("rates", {}))

    def learning_rate(self, preset: str, usual: float) -> float:
        """The method's own ``lr``, else the recipe's, else what is usual for the method."""
        own = self.sections.get(preset, {}).get("lr")
        return float(own if own is not None else self.lr if self.lr is not None else usual)

    def head_rate(self, preset: str, usual: float) -> float:
        """The rate of a new head: the method's own ``head_lr``, else the recipe's, else what is usual."""
        own = self.sections.get(preset, {}).get("head_lr")
        return float(own if own is not None else self.head_lr if self.head_lr is not None else usual)


def load(path: str | None, flags: dict[str, Any], settings: tuple[str, ...] = (), method: str | None = None) -> Recipe:
    """A recipe from a YAML file, command-line flags over it, and ``key=value`` settings over both.

    ``method`` is what a training run trains where neither file nor flags say it; a setting for another
    method than the one trained is an error. Raises GraftuneError for unreadable YAML, unknown keys (with the
    nearest known one) and bad values.
    """
    data: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    names = section_names()
    given = {key: value for key, value in flags.items() if value is not None}
    for source in ({} if path is None else read_yaml(Path(path)), given):
        if "epochs" in source or "max_steps" in source:  # a flag replaces the file's length, however it is written
            data = {key: value for key, value in data.items() if key not in ("epochs", "max_steps")}
        for key, value in source.items():
            if key in names:
                if not isinstance(value, dict):
                    raise GraftuneError(
                        f"recipe section {key!r} must hold options",
                        received=repr(value),
                        expected="indented key: value lines",
                        do=f"write the options of {key} under it, or leave it out",
                    )
                sections.setdefault(key, {}).update(value)
            elif key in GROUPS and isinstance(value, dict):
                for own, one in value.items():
                    _put(data, _group(str(own), str(key)), str(own), one)
            elif (group := group_of(str(key))) is not None:
                _put(data, group, key, value)
            else:
                raise unknown("recipe key", str(key), KEYS | names)
    if method is not None and data.get("method") is None:
        data["method"] = method
    for setting in settings:
        _apply(setting, data, sections, names)
    try:
        recipe = Recipe(**data)
    except ValidationError as error:
        raise bad_value("recipe: bad value for", error) from error
    for name in filter(None, (recipe.method, *(recipe.compare.methods or ()))):
        check_method(name.partition("(")[0].strip())  # a candidate's options are read where it is made
    return recipe.model_copy(update={"sections": checked_sections(sections)})


def given(base: str, recipe: Recipe | None, options: dict[str, Any]) -> Recipe:
    """The recipe of a call from Python: a whole one, or its keys. Raises GraftuneError for both at once."""
    if recipe is None:
        return load(None, {"base": base, **options})
    if options:
        raise GraftuneError(
            "a recipe and its keys cannot be given together",
            received="recipe=… and " + ", ".join(options),
            expected="one of them",
            do="change the recipe: recipe.model_copy(update={…})",
        )
    return recipe


def _apply(setting: str, data: dict[str, Any], sections: dict[str, dict[str, Any]], names: set[str]) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise GraftuneError(
            "--set needs key=value", received=repr(setting), expected="for example lora.rank=4", do="add =value"
        )
    value = scalar(text)
    section, dot, option = key.partition(".")
    if not dot:
        if (group := group_of(key)) is None:
            raise unknown("recipe key", key, KEYS)
        _put(data, group, key, value)
        return
    if section in GROUPS:
        _put(data, _group(option, section), option, value)
        return
    chosen = data.get("method")
    if section == "method" and chosen is not None:
        section = chosen
    if section not in names:
        raise unknown("recipe section", section, names)
    from graftune.methods.method import PRESETS

    if chosen in PRESETS and section in PRESETS and section != chosen:
        same = f"{chosen}.{option}, or " if option in option_types(chosen) else ""
        raise GraftuneError(
            f"--set {setting} belongs to another method",
            received=f"an option of {section!r} while training {chosen!r}",
            expected=f"{chosen}.key=value",
            do=f"did you mean {same}--method {section}?",
        )
    if isinstance(value, dict) and option_types(section).get(option) in (str, str | None):
        value = text  # a template such as {input} looks like a YAML mapping
    sections.setdefault(section, {})[option] = value


def with_methods(recipe: Recipe, chosen: Sequence[Method], **changes: Any) -> Recipe:
    """The recipe with every option of these methods written out."""
    sections = dict(recipe.sections)
    for method in chosen:
        fixed = type(method).presets.get(method.preset, {})
        options = {k: v for k, v in method.describe().items() if k != "method" and k not in fixed}
        sections[method.preset] = {**sections.get(method.preset, {}), **options}
    return recipe.model_copy(update={**changes, "sections": checked_sections(sections)})


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, one section per method and task, ready to be run again."""
    kept = recipe.model_dump(exclude={"sections"}, exclude_none=True)
    data = {name: kept[name] for group in GROUPS.values() for name in group.model_fields if name in kept}
    compare = {key: value for key, value in kept["compare"].items() if key != "workers"}
    if compare != Compare().model_dump(exclude_none=True):
        data["compare"] = compare
    return yaml.safe_dump({**data, **recipe.sections}, sort_keys=False, allow_unicode=True)


def _group(key: str, name: str) -> str:
    """The group of that name, which has the key. Raises GraftuneError where it has not."""
    if key not in GROUPS[name].model_fields:
        raise unknown(f"key of {name}", key, GROUPS[name].model_fields)
    return name


def _put(data: dict[str, Any], group: str, key: str, value: Any) -> None:
    """Note a key's value; those of a comparison stand below it."""
    (data.setdefault("compare", {}) if group == "compare" else data)[key] = value
