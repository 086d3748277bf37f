"""Loading a base and its tokenizer for a task."""

from __future__ import annotations

import difflib
import os
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import model_info, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import PreTrainedModel

from graftune import bases
from graftune.bases.quantize import quantization
from graftune.errors import GraftuneError, unknown
from graftune.tasks.task import Task

PRECISIONS = ("fp32", "bf16", "auto")
_EXPECTED = "a Transformers folder, a Hub name (owner/model) or one of " + ", ".join(bases.SHIPPED)


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
    """A shipped base's folder, a folder as it is, or a Hub name. Raises GraftuneError for one that is not there."""
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
        raise GraftuneError(f"no base at {name}", received="no such folder", expected=_EXPECTED, do="check the path")
    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        _ask_hub(name)
    return name


def _ask_hub(name: str) -> None:
    """Ask once whether the Hub has this base: loading would ask again and again, for a minute."""
    try:
        model_info(name, timeout=10)
    except Exception as error:
        near = difflib.get_close_matches(name, bases.SHIPPED, n=1)
        raise GraftuneError(
            f"unknown base {name!r}",
            received=f"neither a folder nor to be found on the Hub ({short(error)})",
            expected=_EXPECTED,
            do=f"did you mean {near[0]!r}?" if near else "check the name and the connection, or give a local folder",
        ) from error


def short(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder="…")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block Transformers neither warns (a new head is expected) nor shows progress."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()


def _read(name: str, what: str, load: Any) -> Any:
    try:
        return load()
    except (OSError, ValueError, SafetensorError) as error:
        raise GraftuneError(
            f"cannot load the {what} of base {name!r}",
            received=short(error),
            expected=f"a complete Transformers folder, with its {what}",
            do="save or download it again",
        ) from error


def load_tokenizer(name: str) -> Any:
    """The base's tokenizer."""
    return _processor(name, "AutoTokenizer")


def load_processor(name: str, task: Task) -> Any:
    """What turns the task's inputs into numbers for the base: its tokenizer, or its image processor."""
    return _processor(name, task.processor)


def _processor(name: str, auto: str) -> Any:
    folder, what = resolve(name), "tokenizer" if auto == "AutoTokenizer" else "image processor"
    return _read(name, what, lambda: getattr(transformers, auto).from_pretrained(folder))


def load_base(
    name: str, task: Task, tokenizer: Any, precision: str = "fp32", seed: int = 0, quantize: str | None = None
) -> PreTrainedModel:
    """The base for a task, in eval mode, on the GPU where there is one.

    ``seed`` fixes the start values of a head that the base does not bring along; ``quantize`` is "int8" or "nf4".
    """
    folder = resolve(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = precision_of("fp32" if task.float32 and precision == "auto" else precision, device)
    if task.float32 and dtype != torch.float32:
        raise GraftuneError(
            f"the task {task.name!r} needs a base in float32",
            received=f"precision={precision}",
            expected="fp32, or auto, which then means it",
            do="leave precision out",
        )
    packed = quantization(quantize, device, dtype)
    config = _read(name, "config", lambda: transformers.AutoConfig.from_pretrained(folder))
    chosen = task.auto_class(config)
    auto = getattr(transformers, chosen)
    if type(config) not in auto._model_mapping:  # asked here, since loading would call it a broken file
        raise _unfit(name, task, chosen, f"{config.model_type}, which has no {chosen}")
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        base, info = _read(
            name,
            "weights",
            lambda: auto.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head for other labels; of anything else _check says it
                **task.model_arguments(tokenizer),
                **packed,
            ),
        )
        _forget_labels(base, task, config, info["missing_keys"])
    _check(name, base, task, [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    loaded: PreTrainedModel = base.to(device).eval()
    return loaded


def _forget_labels(base: PreTrainedModel, task: Task, saved: Any, missing: Iterable[str]) -> None:
    """Start the maps to labels anew where the checkpoint's are for others, of which there may happen to be as many."""
    wanted = task.model_arguments().get("id2label")
    if wanted is None or wanted == saved.id2label:
        return
    for head in task.head_names(base):
        for path, module in base.get_submodule(head).named_modules(prefix=head):
            maps = isinstance(module, torch.nn.Linear) and module.out_features - len(wanted) in (0, 1)  # 1: no object
            if maps and f"{path}.weight" not in missing:
                module.reset_parameters()


def _unfit(name: str, task: Task, auto: str, received: str) -> GraftuneError:
    if auto != "AutoModelForCausalLM":
        return GraftuneError(
            f"base {name!r} cannot do the task {task.name!r}", received=received, expected="a base that has one"
        )
    return GraftuneError(
        f"base {name!r} does not write text from left to right",
        received=received,
        expected="a causal language model",
        do="choose a decoder, or train it to --task classify",
    )


def _check(name: str, base: PreTrainedModel, task: Task, missing: Iterable[str]) -> None:
    """Raise GraftuneError for a base that cannot do the task, or whose weights are not all there."""
    sights = [module.is_causal for module in base.modules() if hasattr(module, "is_causal")]
    if task.auto_class(base.config) == "AutoModelForCausalLM" and sights and not any(sights):
        raise _unfit(name, task, "AutoModelForCausalLM", f"{type(base).__name__}, an encoder")
    new = {*task.head_names(base), "pooler"}  # an encoder trained on masked words alone has no pooler
    if absent := sorted(key for key in missing if not new & set(key.split("."))):
        raise GraftuneError(
            f"base {name!r} lacks weights",
            received=f"no {absent[0]}" + (f" and {len(absent) - 1} more" if absent[1:] else ""),
            expected="all weights but those of a new head",
            do="give the complete checkpoint",
        )
