"""Loading a base and its tokenizer for a task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from graftune import bases
from graftune.errors import GraftuneError, unknown
from graftune.tasks.task import Task

PRECISIONS = ("fp32", "bf16", "auto")


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the base: "auto" is bf16 where the hardware multiplies it natively, else fp32."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported()
        else:
            native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def resolve(name: str) -> str:
    """A shipped base's folder, a folder as it is, or a Hub name. Raises GraftuneError for a missing folder."""
    if name in bases.SHIPPED:
        return str(bases.path(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise GraftuneError(
                f"{name} is not a Transformers folder",
                received="a folder without config.json",
                expected="a folder written by save_pretrained",
                do="give the folder that holds config.json and the weights",
            )
        return str(folder)
    if os.sep in name and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise GraftuneError(
            f"no base at {name}",
            received="no such folder",
            expected="a Transformers folder, a Hub name (owner/model) or one of " + ", ".join(bases.SHIPPED),
        )
    return name


def _read(name: str, what: str, load: Any) -> Any:
    try:
        return load()
    except (OSError, ValueError) as error:
        raise GraftuneError(
            f"cannot load the {what} of base {name!r}",
            received=str(error).strip().splitlines()[0],
            expected="a Transformers folder, a Hub name (owner/model) or one of " + ", ".join(bases.SHIPPED),
            do="check the name, or give a local folder",
        ) from error


def load_tokenizer(name: str) -> Any:
    """The base's tokenizer."""
    folder = resolve(name)
    return _read(name, "tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(folder))


def load_base(name: str, task: Task, tokenizer: Any, precision: str = "fp32", seed: int = 0) -> PreTrainedModel:
    """The base for a task, in eval mode, on the GPU where there is one.

    ``seed`` fixes the start values of a head that the base does not bring along.
    """
    folder = resolve(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = precision_of(precision, device)
    auto = getattr(transformers, task.auto_class)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # a new head is expected, no warning needed
    transformers.logging.disable_progress_bar()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            base: PreTrainedModel = _read(
                name,
                "weights",
                lambda: auto.from_pretrained(folder, dtype=dtype, **task.model_arguments(tokenizer)),
            )
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()
    return base.to(device).eval()
