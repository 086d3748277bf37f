"""Reading adapters: Graftune's own format and those of others, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftune.checkpoint import native, peft
from graftune.errors import GraftuneError

if TYPE_CHECKING:
    from graftune.model.adapter import Adapter
    from graftune.model.keeper import AdapterKeeper


def load(model: AdapterKeeper, name: str, path: Path, *, trainable: bool = False) -> Adapter:
    """Read an adapter folder of any known format into a model.

    Raises GraftuneError where the folder is missing, of no known format, damaged or for another base.
    """
    if (path / native.CARD).exists():
        return native.load(model, name, path, trainable=trainable)
    if (path / peft.CONFIG).exists():
        return peft.load(model, name, path)
    raise GraftuneError(
        f"no adapter in {path}",
        received="a folder without them" if path.is_dir() else "no such folder",
        expected=f"{native.CARD} (Graftune) or {peft.CONFIG} (Hugging Face PEFT)",
        do="give the folder of an adapter, for a run OUT that is OUT/adapter",
    )
