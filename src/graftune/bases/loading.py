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
from graftune.bases.head import Head
from graftune.bases.quantize import quantization
from graftune.errors import GraftuneError, unknown

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


def load_processor(name: str, auto: str = "AutoTokenizer") -> Any:
    """What turns inputs into numbers for the base: its tokenizer, or what another Auto class loads."""
    folder, what = resolve(name), "tokenizer" if auto == "AutoTokenizer" else "image processor"
    return _read(name, what, lambda: getattr(transformers, auto).from_pretrained(folder))


def load_config(name: str) -> Any:
    """The base's config."""
    folder = resolve(name)
    return _read(name, "config", lambda: transformers.AutoConfig.from_pretrained(folder))


def load_base(
    name: str, head: Head, tokenizer: Any, precision: str = "fp32", seed: int = 0, quantize: str | None = None
) -> PreTrainedModel:
    """The base with the head that a task needs, in eval mode, on the GPU where there is one.

    ``seed`` fixes the start values of a head that the base does not bring along; ``quantize`` is "int8" or "nf4".
    Raises GraftuneError for a base that cannot have such a head, or that lacks weights.
    """
    folder = resolve(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = precision_of("fp32" if head.float32 and precision == "auto" else precision, device)
    if head.float32 and dtype != torch.float32:
        raise GraftuneError(
            f"the task {head.task!r} needs a base in float32",
            received=f"precision={precision}",
            expected="fp32, or auto, which then means it",
            do="leave precision out",
        )
    packed = quantization(quantize, device, dtype)
    config = load_config(name)
    auto = getattr(transformers, head.auto_class)
    if type(config) not in auto._model_mapping:  # asked here, since loading would call it a broken file
        raise _unfit(name, head, f"{config.model_type}, which has no {head.auto_class}")
    padding = {"pad_token_id": pad_id(config, tokenizer)} if head.pads and tokenizer is not None else {}
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        base, info = _read(
            name,
            "weights",
            lambda: auto.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # only a new head may mismatch; _check raises for any other key
                **head.loading,
                **padding,
                **packed,
            ),
        )
        _forget_labels(base, head, config, info["missing_keys"])
    _check(name, base, head, [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    loaded: PreTrainedModel = base.to(device).eval()
    return loaded


def pad_id(config: Any, tokenizer: Any) -> int:
    """The id to pad with: the base's own padding token, else the tokenizer's, else its end of text, else 0.

    Ids that the base has no embedding for (such as -1, or a token that was added to the tokenizer alone) do not count;
    the attention mask hides whatever stands there.
    """
    text = config.get_text_config()
    names = ("pad_token_id", "eos_token_id")
    candidates = [getattr(text, "pad_token_id", None), *(getattr(tokenizer, name, None) for name in names)]
    rows = getattr(text, "vocab_size", None)
    usable = (c for c in candidates if isinstance(c, int) and c >= 0 and (rows is None or c < rows))
    return next(usable, 0)


def _forget_labels(base: PreTrainedModel, head: Head, saved: Any, missing: Iterable[str]) -> None:
    """Re-initialise the head when the checkpoint was trained for other labels, even if their number is the same."""
    wanted = head.loading.get("id2label")
    if wanted is None or wanted == saved.id2label:
        return
    for name in head.modules(base):
        for path, module in base.get_submodule(name).named_modules(prefix=name):
            # One output more than labels: the class of no object.
            maps = isinstance(module, torch.nn.Linear) and module.out_features - len(wanted) in (0, 1)
            if maps and f"{path}.weight" not in missing:
                module.reset_parameters()


def _unfit(name: str, head: Head, received: str) -> GraftuneError:
    if head.auto_class != "AutoModelForCausalLM":
        return GraftuneError(
            f"base {name!r} cannot do the task {head.task!r}", received=received, expected="a base that has one"
        )
    return GraftuneError(
        f"base {name!r} does not write text from left to right",
        received=received,
        expected="a causal language model",
        do="choose a decoder, or train it to --task classify",
    )


def _check(name: str, base: PreTrainedModel, head: Head, missing: Iterable[str]) -> None:
    """Raise GraftuneError for a base that cannot do the task, or whose weights are not all there."""
    causal = [module.is_causal for module in base.modules() if hasattr(module, "is_causal")]
    if head.auto_class == "AutoModelForCausalLM" and causal and not any(causal):
        raise _unfit(name, head, f"{type(base).__name__}, an encoder")
    new = {*head.modules(base), "pooler"}  # an encoder trained on masked words alone has no pooler
    if absent := sorted(key for key in missing if not new & set(key.split("."))):
        raise GraftuneError(
            f"base {name!r} lacks weights",
            received=f"no {absent[0]}" + (f" and {len(absent) - 1} more" if absent[1:] else ""),
            expected="all weights but those of a new head",
            do="give the complete checkpoint",
        )
