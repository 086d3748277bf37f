"""Checkpoints: a run's state, from which a killed run goes on exactly where it stood. Never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from graftune.checkpoint import files
from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter

TENSORS = "state.safetensors"
PROGRESS = "state.json"


@dataclass
class Progress:
    """Where a run stands: steps done, their time and tokens, and the curve so far."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


class Log:
    """``log.jsonl``: a line per step, added as it is made. A resumed run drops those after its checkpoint."""

    def __init__(self, path: Path | None, curve: list[dict[str, Any]]) -> None:
        self.path = path
        if path is not None:
            files.write_text(path, "".join(map(_line, curve)))

    def add(self, point: dict[str, Any]) -> None:
        """Append one step."""
        if self.path is not None:
            with files.disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(_line(point))


def _line(point: dict[str, Any]) -> str:
    return json.dumps(point) + "\n"


def save(path: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write parameters, optimizer and random state as one folder, at once or not at all."""
    tensors = {f"adapter.{n}": p.detach().contiguous() for n, p in adapter.named_parameters()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in values.items()}
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()

    def write(folder: Path) -> None:
        save_file(tensors, folder / TENSORS)
        (folder / PROGRESS).write_text(json.dumps(asdict(progress)))

    files.write_folder(path, write)


def load(path: Path, adapter: Adapter, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a run back to where its checkpoint stood. Raises GraftuneError for a damaged checkpoint."""
    try:
        tensors = load_file(path / TENSORS)
        progress = Progress(**json.loads((path / PROGRESS).read_text()))
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                parameter.copy_(tensors[f"adapter.{name}"])
        kept = optimizer.state_dict()
        kept["state"] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                kept["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(kept)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise GraftuneError(
            f"the checkpoint at {path} is damaged",
            received=f"{type(error).__name__}: {error}",
            expected="a checkpoint of this run",
            do="delete that folder to start the run again",
        ) from error
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return progress
