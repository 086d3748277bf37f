"""The small bases that ship with the package, and loading of any Transformers folder or Hub name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from graftune.errors import unknown

SHIPPED = {"tiny-decoder": "tiny_decoder", "tiny-encoder": "tiny_encoder"}


def path(name: str) -> Path:
    """The folder of a shipped base. Raises GraftuneError for an unknown name."""
    if name not in SHIPPED:
        raise unknown("shipped base", name, SHIPPED)
    return Path(str(resources.files(__package__) / SHIPPED[name]))
