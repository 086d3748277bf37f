"""Keys and values as people write them: in a file, and on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from graftune.errors import GraftuneError

#: What a pair looks like, by the key that has pairs.
PAIRS = {
    "known": "METHOD.lr=RATE, such as lora.lr=1e-3",
    "limit": "KIND=SIZE, such as stored=1MB",
    "space": "METHOD.OPTION=VALUES, such as lora.rank=[4, 16, 64] or lora.dropout={low: 0, high: 0.2}",
}


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a recipe. Raises GraftuneError for a file that is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GraftuneError(
            f"cannot read the recipe {path}",
            received=error.strerror,
            expected="a YAML file",
            do="check the path",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GraftuneError(
            f"{path} is not YAML",
            received=" ".join(str(error).split()),
            expected="key: value lines",
            do="correct the file",
        ) from error
    if not isinstance(data, dict):
        raise GraftuneError(
            f"{path} holds no recipe",
            received=type(data).__name__,
            expected="key: value lines",
            do="give a file such as the recipe.yaml of a run",
        )
    return data


def scalar(text: str) -> Any:
    """A value as YAML reads it, with 1e-3 a number too; text that is no YAML stands for itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def split(text: str) -> list[str]:
    """What stands between commas, but for commas in brackets: `lora,lora(rank=4, targets=[q, v])` is two."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def pairs(key: str, given: Sequence[str]) -> dict[str, Any]:
    """What is written NAME=VALUE; of a known rate, METHOD.lr=RATE, the name is the method. Raises GraftuneError."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=") if key == "space" else one.rpartition("=")
        if not equals or not name or (key == "known" and not name.endswith(".lr")):
            raise GraftuneError(
                f"--{key} cannot be read", received=one, expected=PAIRS.get(key, "NAME=VALUE"), do="write it so"
            )
        found[name.removesuffix(".lr")] = scalar(value) if key == "space" else value
    return found
