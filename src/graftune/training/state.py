"""Checkpoints: a run's state, from which a killed run goes on exactly where it stood. Never pickle.

The last two are kept, each written whole and with a checksum, so that one that a crash or a disk has damaged is
found out and the one before it used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftune import files
from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter

FOLDER = "checkpoints"
TENSORS = "state.safetensors"
PROGRESS = "state.json"
KEPT = 2


@dataclass
class Progress:
    """Where a run stands: steps done, their time and tokens, and the curve so far."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Tensor] = field(default_factory=dict)
    """What was trained at the end, where the adapter of a lower loss was given back."""

    @property
    def best(self) -> int | None:
        """The step of the lowest evaluation loss, the first of equal ones."""
        measured = [(point["eval_loss"], point["step"]) for point in self.curve if point["eval_loss"] is not None]
        return min(measured)[1] if measured else None

    @property
    def waited(self) -> int:
        """How many evaluations there were since the best one."""
        best = self.best or 0
        return sum(p["eval_loss"] is not None and p["step"] > best for p in self.curve)


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


def any_in(folder: Path) -> bool:
    """Whether a run's folder holds a checkpoint."""
    return bool(_all(folder))


def clear(folder: Path) -> None:
    """Delete the checkpoints of a run."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, newest first. Half-written ones have other names."""
    return sorted((folder / FOLDER).glob("step-*"), reverse=True)


def save(
    folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, progress: Progress, best: dict[str, Tensor]
) -> None:
    """Write parameters, best parameters, optimizer and progress into a run's folder, at once or not at all."""
    tensors = {f"adapter.{n}": p.detach() for n, p in adapter.named_parameters()}
    tensors |= {f"best.{n}": t for n, t in best.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}

    def write(place: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place / TENSORS)
        record = {**asdict(progress), "sha256": _digest(place / TENSORS)}
        (place / PROGRESS).write_text(json.dumps(record))

    files.write_folder(folder / FOLDER / f"step-{progress.step:08d}", write)
    for old in _all(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, say: Callable[[str], None]
) -> tuple[Progress, dict[str, Tensor]]:
    """Put a run back to where its newest good checkpoint stood; that progress, and the best parameters so far.

    A damaged checkpoint is said aloud and the one before it used. Raises GraftuneError where none is good.
    """
    problem: Exception | None = None
    found = _all(folder)
    for path in found:
        try:
            return _load(path, adapter, optimizer)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            problem = error
            say(f"the checkpoint {path} is damaged ({error}); it is left out")
    if problem is None:
        return Progress(), {}
    raise GraftuneError(
        f"no checkpoint in {folder / FOLDER} can be read",
        received=f"{len(found)} damaged, the last one with {type(problem).__name__}: {problem}",
        expected="a checkpoint of this run",
        do="delete that folder to start the run again",
    ) from problem


def _load(path: Path, adapter: Adapter, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]]:
    record = json.loads((path / PROGRESS).read_text())
    if record.pop("sha256") != _digest(path / TENSORS):
        raise ValueError(f"{TENSORS} is not what was written")
    progress = Progress(**record)
    tensors = load_file(path / TENSORS)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    own = {name: tensors[f"adapter.{name}"] for name, _ in adapter.named_parameters()}
    restore(adapter, own)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress, {key.removeprefix("best."): value for key, value in tensors.items() if key.startswith("best.")}


def restore(adapter: Adapter, values: dict[str, Tensor]) -> None:
    """Set every parameter of the adapter to the value of its name."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.copy_(values[name])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
