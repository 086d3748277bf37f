"""How a key of a recipe is described: what it says, its default in words, and the commands that have a flag for it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

#: Commands that have a flag for a key where nothing else is said.
USUAL: Final = ("train", "compare")
#: The bounds of a learning rate.
RATE: Final[dict[str, Any]] = {"gt": 0, "allow_inf_nan": False}


def key(default: Any, says: str, *commands: str, metavar: str | None = None, usual: str = "", **limits: Any) -> Any:
    """A key with its description; `usual` says the default where that is not a plain value."""
    extra: dict[str, Any] = {"commands": list(commands or USUAL), "metavar": metavar, "usual": usual}
    made = {"default_factory": default} if callable(default) else {"default": default}
    return Field(description=says, json_schema_extra=extra, **made, **limits)


class Group(BaseModel):
    """Some keys that belong together; its docstring is their heading."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, coerce_numbers_to_str=True)


def commands(field: FieldInfo) -> list[str]:
    """The commands that have a flag for a key."""
    return list(_extra(field)["commands"])


def metavar(field: FieldInfo) -> str | None:
    """What stands for a key's value in `--help`."""
    found: str | None = _extra(field)["metavar"]
    return found


def default_of(field: FieldInfo) -> str:
    """A key's default in words; empty where there is none."""
    default = field.get_default(call_default_factory=True)
    if usual := str(_extra(field)["usual"]):
        return usual
    if default is None or default == [] or default == {}:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default).lower()


def _extra(field: FieldInfo) -> dict[str, Any]:
    found = field.json_schema_extra
    assert isinstance(found, dict)
    return found
