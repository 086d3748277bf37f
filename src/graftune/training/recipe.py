"""Recipes: everything a run depends on, as strict data that YAML and the command line fill."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graftune.errors import GraftuneError, unknown

#: Keys of a method's section that belong to training rather than to the method.
TRAINING_KEYS = ("lr",)


class Recipe(BaseModel):
    """What to train on what, for how long. ``sections`` holds options per method and per task."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    base: str = "tiny-decoder"
    task: str = "generate"
    train: str | None = None
    eval: str | None = None
    input: str | None = None
    target: str | None = None
    train_rows: int | None = Field(None, ge=1)
    eval_rows: int | None = Field(None, ge=1)
    batch_size: int = Field(16, ge=1)
    max_steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    max_length: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0)
    warmup: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    seed: int = 0
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    eval_every: int | None = Field(None, ge=1)
    checkpoint_every: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def section(self, name: str) -> dict[str, Any]:
        """The options of one method or task, without those of training."""
        return {k: v for k, v in self.sections.get(name, {}).items() if k not in TRAINING_KEYS}

    def learning_rate(self, preset: str, usual: float) -> float:
        """The method's own ``lr``, else the recipe's, else what is usual for the method."""
        own = self.sections.get(preset, {}).get("lr")
        return float(own if own is not None else self.lr if self.lr is not None else usual)


def scalar(text: str) -> Any:
    """A value as YAML reads it, with 1e-3 a number too."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _section_names() -> set[str]:
    from graftune import methods  # noqa: F401 - fills the table of presets
    from graftune.methods.method import PRESETS
    from graftune.tasks.registry import TASKS

    return set(PRESETS) | set(TASKS)


def load(path: str | None, flags: dict[str, Any], settings: tuple[str, ...] = (), chosen: str | None = None) -> Recipe:
    """A recipe from a YAML file, command-line flags over it, and ``key=value`` settings over both.

    ``chosen`` is the one method of a training run: a setting for another one is an error.
    Raises GraftuneError for unreadable YAML, unknown keys (with the nearest known one) and bad values.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = _read(Path(path))
    names = _section_names()
    sections: dict[str, dict[str, Any]] = {}
    for key in list(data):
        if key in names:
            if not isinstance(data[key], dict):
                raise GraftuneError(f"recipe section {key!r} must hold options", received=repr(data.pop(key)))
            sections[key] = data.pop(key)
        elif key not in Recipe.model_fields:
            raise unknown("recipe key", key, (set(Recipe.model_fields) - {"sections"}) | names)
    for name, value in data.pop("sections", {}).items():
        sections[name] = {**value, **sections.get(name, {})}
    data |= {key: value for key, value in flags.items() if value is not None}
    for setting in settings:
        _apply(setting, data, sections, names, chosen)
    _check_sections(sections)
    try:
        return Recipe(**data, sections=sections)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GraftuneError(
            f"recipe: bad value for {where!r}",
            received=repr(first["input"]),
            expected=first["msg"].lower(),
            do=f"change {where!r}",
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GraftuneError(f"no recipe at {path}", received="no such file", expected="a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GraftuneError(
            f"{path} is not YAML", received=str(error).replace("\n", " "), expected="key: value lines"
        ) from error
    if not isinstance(data, dict):
        raise GraftuneError(f"{path} holds no recipe", received=type(data).__name__, expected="key: value lines")
    return data


def _apply(
    setting: str,
    data: dict[str, Any],
    sections: dict[str, dict[str, Any]],
    names: set[str],
    chosen: str | None,
) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise GraftuneError("--set needs key=value", received=repr(setting), expected="for example lora.rank=4")
    value = scalar(text)
    section, dot, option = key.partition(".")
    if not dot:
        if key not in Recipe.model_fields or key == "sections":
            raise unknown("recipe key", key, set(Recipe.model_fields) - {"sections"})
        data[key] = value
        return
    if section == "method" and chosen is not None:
        section = chosen
    if section not in names:
        raise unknown("recipe section", section, names)
    from graftune.methods.method import PRESETS

    if chosen is not None and section in PRESETS and section != chosen:
        raise GraftuneError(
            f"--set {setting} belongs to another method",
            received=f"an option of {section!r} while training {chosen!r}",
            expected=f"{chosen}.key=value",
            do=f"did you mean {chosen}.{option}, or --method {section}?",
        )
    sections.setdefault(section, {})[option] = value


def _check_sections(sections: dict[str, dict[str, Any]]) -> None:
    """Every option of every section must exist, whether that method runs or not."""
    from graftune.methods.method import PRESETS, make
    from graftune.tasks import registry

    for name, options in sections.items():
        if name in PRESETS:
            make(name, **{k: v for k, v in options.items() if k not in TRAINING_KEYS})
        elif name in registry.TASKS:
            registry.make(name, **options)
        else:
            raise unknown("recipe section", name, _section_names())


def dump(recipe: Recipe, **extra: Any) -> str:
    """The resolved recipe as YAML, one section per method and task, ready to be run again."""
    data = recipe.model_dump(exclude={"sections"}, exclude_none=True)
    return yaml.safe_dump({**extra, **data, **recipe.sections}, sort_keys=False, allow_unicode=True)
