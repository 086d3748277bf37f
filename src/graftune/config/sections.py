"""Sections of a recipe: the options of methods and tasks, each known and of its type."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from graftune.config.described import RATE
from graftune.errors import GraftuneError, unknown

#: Keys of a method's section that belong to training rather than to the method.
TRAINING_KEYS: dict[str, Any] = {
    "lr": Annotated[float, Field(**RATE)],
    "head_lr": Annotated[float, Field(**RATE)],
    "rates": dict[str, Annotated[float, Field(ge=0)]],
}
_LENIENT = ConfigDict(coerce_numbers_to_str=True)


def section_names() -> set[str]:
    from graftune import methods  # noqa: F401 - fills the table of presets
    from graftune.methods.method import PRESETS
    from graftune.tasks.registry import TASKS

    return set(PRESETS) | set(TASKS)


def check_method(name: str) -> None:
    from graftune.methods.method import PRESETS

    if name not in PRESETS:
        raise unknown("method", name, PRESETS)


def bad_value(problem: str, error: ValidationError, key: str = "") -> GraftuneError:
    first, *others = error.errors()
    where = key or ".".join(map(str, first["loc"]))
    return GraftuneError(
        f"{problem} {where!r}",
        received=repr(first["input"]),
        expected=", or ".join(one["msg"][0].lower() + one["msg"][1:] for one in (first, *others)),
        do=f"change {where!r}",
    )


def option_types(name: str) -> dict[str, Any]:
    """The options of a method or task, with their types."""
    from graftune.methods.method import PRESETS
    from graftune.tasks.registry import TASKS

    if name in PRESETS:
        return {**get_type_hints(PRESETS[name][0]), **TRAINING_KEYS}
    return get_type_hints(TASKS[name])


def checked_sections(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections, every option known and of its type, whether that method runs or not."""
    from graftune.methods.method import PRESETS, make
    from graftune.tasks import registry

    typed: dict[str, dict[str, Any]] = {}
    for name, options in sections.items():
        types = option_types(name)
        typed[name] = {}
        for key, value in options.items():
            try:
                adapter = TypeAdapter(types.get(key, Any), config=_LENIENT)
                typed[name][key] = adapter.validate_python(value)
            except ValidationError as error:
                raise bad_value("bad value for", error, f"{name}.{key}") from error
        if name in PRESETS:
            make(name, **{k: v for k, v in typed[name].items() if k not in TRAINING_KEYS})
        else:
            registry.make(name, **typed[name])
    return typed
