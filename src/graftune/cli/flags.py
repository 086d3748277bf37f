"""Flags made of the keys of a recipe, and the recipe made of the flags of a call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import typer
from annotated_types import Ge
from pydantic.fields import FieldInfo

from graftune.config.described import commands, default_of, metavar
from graftune.config.keys import GROUPS
from graftune.config.written import pairs, split

KIND = inspect.Parameter.KEYWORD_ONLY


def with_keys(
    command: str, method: str | None = None, **says: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose first argument is the recipe of its `--recipe`, flags and `--set`.

    It has a flag for each key that names the command. `says` is the help of keys that have another one here; `method`
    is what is trained where nothing is said.
    """
    keys = {
        name: (group.__doc__ or "", field)
        for group in GROUPS.values()
        for name, field in group.model_fields.items()
        if command in commands(field)
    }

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def called(**given: Any) -> None:
            from graftune.config import recipe as recipes

            file, settings = given.pop("recipe"), tuple(given.pop("settings") or ())
            flags = {name: _read(name, field, given.pop(name)) for name, (_, field) in keys.items()}
            function(recipes.load(file, flags, settings, method=method), **given)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        made = [_flag(name, field, panel, says.get(name)) for name, (panel, field) in keys.items()]
        shared = [
            _parameter("settings", list[str], "--set", help="Any recipe key, or method.key.", metavar="KEY=VALUE"),
            _parameter("recipe", str, "--recipe", help="A YAML recipe.", metavar="FILE"),
        ]
        parameters = [*(one.replace(kind=KIND) for one in own), *made, *shared]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def _flag(name: str, field: FieldInfo, panel: str, says: str | None) -> inspect.Parameter:
    """The flag of a key: its help is the first sentence of what the key says, with the default."""
    first = (field.description or "").split(". ")[0].rstrip(".")
    default = default_of(field)
    if says is not None:
        first, default = says.rstrip("."), ""
    shown = f"{first} (default: {default})." if default and field.annotation is not bool else f"{first}."
    dashed = "--" + name.replace("_", "-")
    both = f"{dashed}/--no-{name.replace('_', '-')}" if field.annotation is bool else dashed
    kind = _type_of(field)
    least = next((one.ge for one in field.metadata if isinstance(one, Ge)), None) if kind is int else None
    more = {"min": least, "metavar": metavar(field), "rich_help_panel": panel}
    return _parameter(name, kind, both, help=shown.replace("[", r"\["), **more)


def _type_of(field: FieldInfo) -> Any:
    """What the command line reads for a key: a number, a yes or no, several NAME=VALUE, or a word."""
    if get_origin(field.annotation) is dict:
        return list[str]
    kinds = [kind for kind in (*get_args(field.annotation), field.annotation) if kind in (int, float, bool)]
    return kinds[0] if kinds else str


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(kind) is list for kind in (field.annotation, *get_args(field.annotation)))


def _read(name: str, field: FieldInfo, given: Any) -> Any:
    """What a flag's value is in a recipe: lists are written with commas, pairs as NAME=VALUE."""
    if isinstance(given, list):
        return pairs(name, given)
    return split(given) if given is not None and _is_list(field) else given


def _parameter(name: str, kind: Any, *flags: str, **more: Any) -> inspect.Parameter:
    return inspect.Parameter(name, KIND, default=None, annotation=Annotated[kind | None, typer.Option(*flags, **more)])
