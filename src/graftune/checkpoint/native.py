"""Graftune's own format: a folder with ``adapter.json``, ``adapter.safetensors`` and, beside a folded export,
``generator.safetensors`` to go on training. Never pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from graftune import files
from graftune.checkpoint import fingerprint
from graftune.errors import GraftuneError
from graftune.methods.method import make
from graftune.model.adapter import Adapter, escape

if TYPE_CHECKING:
    from graftune.model.keeper import AdapterKeeper

FORMAT = 1
CARD = "adapter.json"
TENSORS = "adapter.safetensors"
GENERATOR = "generator.safetensors"
AGAIN = "copy the folder again"
NEEDED = ("method", "options", "heads", "base", "sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(adapter: Adapter, base: PreTrainedModel, path: Path, use: dict[str, Any] | None = None) -> Path:
    """Write an adapter folder, at once or not at all.

    ``use`` is kept in the card: how to use the adapter (base, task, template). Raises GraftuneError on a full
    disk.
    """
    tensors = {name: t.contiguous().cpu() for name, t in adapter.stored().items()}
    count = adapter.count()
    card: dict[str, Any] = {
        "format": FORMAT,
        "method": adapter.method.preset,
        "options": {k: v for k, v in adapter.method.describe().items() if k != "method"},
        "heads": list(adapter.heads),
        "base": {
            "class": type(base).__name__,
            "name": base.config.name_or_path,
            **fingerprint.describe(base),
        },
        "parameters": {"trained": count.trained, "stored": count.stored},
        "use": use,
    }

    def write(folder: Path) -> None:
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
        hashes = {TENSORS: _digest(folder / TENSORS)}
        if len(adapter.generators):
            generator = {
                f"generators.{n}": p.detach().contiguous().cpu() for n, p in adapter.generators.named_parameters()
            }
            save_file(generator, folder / GENERATOR, metadata={"format": "pt"})
            hashes[GENERATOR] = _digest(folder / GENERATOR)
        (folder / CARD).write_text(json.dumps({**card, "sha256": hashes}, indent=2) + "\n", encoding="utf-8")

    files.write_folder(path, write)
    return path


def size(path: Path) -> int:
    """Bytes of what serving an adapter needs: card and tensors, not the generator."""
    return sum((path / name).stat().st_size for name in (CARD, TENSORS))


def card(path: Path) -> dict[str, Any]:
    """The contents of ``adapter.json``. Raises GraftuneError where it is missing or broken."""
    try:
        found: Any = json.loads((path / CARD).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GraftuneError(f"{path / CARD} is broken", received=str(error), expected="JSON", do=AGAIN) from error
    if not isinstance(found, dict):
        raise GraftuneError(
            f"{path / CARD} is broken", received=type(found).__name__, expected="a JSON object", do=AGAIN
        )
    if found.get("format") != FORMAT:
        raise GraftuneError(
            f"{path / CARD} has an unknown format",
            received=f"format {found.get('format')!r}",
            expected=f"format {FORMAT}",
            do="read it with the version of graftune that wrote it",
        )
    missing = [key for key in NEEDED if key not in found]
    if missing:
        raise GraftuneError(
            f"{path / CARD} is broken",
            received=f"no {', '.join(missing)}",
            expected=", ".join(NEEDED),
            do=AGAIN,
        )
    return found


def _tensors(path: Path, name: str, expected: str) -> dict[str, Tensor]:
    file = path / name
    if not file.exists():
        raise GraftuneError(
            f"{file} is missing", expected="the file that adapter.json names", do="copy the whole folder"
        )
    if _digest(file) != expected:
        raise GraftuneError(
            f"{file} is damaged",
            received="contents that differ from when it was written",
            expected=f"sha256 {expected[:12]}…",
            do="copy the folder again, or train the adapter again",
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise GraftuneError(f"{file} is damaged", received=str(error), expected="safetensors") from error


def load(model: AdapterKeeper, name: str, path: Path, *, trainable: bool) -> Adapter:
    """Read an adapter folder into a model.

    Raises GraftuneError for another base, damaged files, or tensors that do not fit.
    """
    info = card(path)
    options = info["options"]
    if other := fingerprint.difference(model.base, info["base"], head=not info["heads"]):
        raise GraftuneError(
            "this adapter belongs to another base",
            received=other,
            expected=f"{info['base']['class']} {info['base']['name']!r} with fingerprint {info['base']['fingerprint']}",
            do="load the base that the adapter was trained on",
        )
    tensors = _tensors(path, TENSORS, info["sha256"][TENSORS])
    generator = None
    if trainable and GENERATOR in info["sha256"]:
        generator = _tensors(path, GENERATOR, info["sha256"][GENERATOR])
    adapter = model.add(name, make(info["method"], **_without_words(options, tensors)), heads=tuple(info["heads"]))
    try:
        if generator is None:
            adapter.fold()
        fill(adapter, {**tensors, **(generator or {})})
    except GraftuneError:
        model.remove(name)
        raise
    return adapter


def _without_words(options: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The options without their start from words: the trained rows replace it, and no tokenizer is needed."""
    if options.get("text") is None and options.get("init") != "labels":
        return options
    length = next(t.shape[0] for key, t in tensors.items() if key.endswith(".rows"))
    return {**options, "length": length, "text": None, **({"init": "random"} if "init" in options else {})}


def fill(adapter: Adapter, tensors: dict[str, Tensor]) -> None:
    """Copy stored tensors into an adapter; rows that a live generator makes are left to it.

    Raises GraftuneError for missing, extra or ill-shaped tensors.
    """
    own = dict(adapter.named_parameters())
    made = {f"parts.{escape(key)}.rows" for g in adapter.generators for key in getattr(g, "keys", ())}
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys() - made)
    if missing or extra:
        raise GraftuneError(
            "the stored tensors do not fit the method on this base",
            received=f"{len(extra)} unknown tensors" + (f" such as {extra[0]}" if extra else ""),
            expected=f"{len(missing)} more tensors" + (f" such as {missing[0]}" if missing else ""),
        )
    with torch.no_grad():
        for key, parameter in own.items():
            if parameter.shape != tensors[key].shape:
                raise GraftuneError(
                    f"stored tensor {key} has another shape",
                    received=tuple(tensors[key].shape),
                    expected=tuple(parameter.shape),
                )
            parameter.copy_(tensors[key])
