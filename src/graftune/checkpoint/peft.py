"""Reader of Hugging Face PEFT folders: ``adapter_config.json`` beside ``adapter_model.safetensors``.

Read are LoRA (rsLoRA, DoRA and ranks by pattern too), IA3, prefix-tuning, and on decoders prompt tuning and
P-tuning, each with the heads saved beside it. The layout is that of PEFT 0.21; what would compute something
else than PEFT does is refused, not guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from graftune.checkpoint import native
from graftune.checkpoint.peft_methods import READERS, Config, Tensors, unsupported
from graftune.errors import GraftuneError, unknown
from graftune.model.adapter import Adapter, escape

if TYPE_CHECKING:
    from graftune.model.keeper import AdapterKeeper

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

#: Options that say where a file comes from or how it was trained, not what it computes.
_NEUTRAL = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "encoder_dropout", "encoder_hidden_size",
    "encoder_num_layers", "ensure_weight_tying", "eva_config", "fan_in_fan_out", "inference_mode",
    "init_ia3_weights", "init_weights", "layers_pattern", "loftq_config", "lora_ga_config", "megatron_core",
    "peft_type", "peft_version", "prefix_projection", "prompt_tuning_init", "prompt_tuning_init_text",
    "qalora_group_size", "revision", "runtime_config", "task_type", "tokenizer_kwargs",
    "tokenizer_name_or_path", "velora_config",
}  # fmt: skip


def load(model: AdapterKeeper, name: str, path: Path) -> Adapter:
    """Read a PEFT folder into a model as an ordinary adapter, ready to be saved natively.

    Raises GraftuneError for pickled weights, damaged files, an option or method that is not supported, and
    tensors that do not fit this base.
    """
    config = _config(path)
    kind = str(config.get("peft_type"))
    if kind not in READERS:
        raise unknown("peft_type", kind, READERS)
    options, read = READERS[kind]
    for option in sorted(config.keys() - options - _NEUTRAL):
        if config[option]:
            raise unsupported(f"{option}={config[option]!r}", f"a {kind} adapter without {option}")
    found = read(model, config, _tensors(path))
    heads, copies = _heads(model, found.rest)
    adapter = model.add(name, found.method, heads=heads)
    try:
        adapter.fold()
        native.fill(adapter, {**found.tensors, **copies})
    except GraftuneError:
        model.remove(name)
        raise
    return adapter


def _config(path: Path) -> Config:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GraftuneError(
            f"{path / CONFIG} is broken", received=str(error), expected="JSON", do="copy the folder again"
        ) from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise GraftuneError(f"{path / CONFIG} is broken", received=kind, expected="a JSON object")
    return config


def _tensors(path: Path) -> Tensors:
    file = path / TENSORS
    if not file.exists():
        pickled = (path / PICKLE).exists()
        raise GraftuneError(
            f"{file} is missing",
            received=f"{PICKLE}, a pickle, which can run any code" if pickled else "a folder without weights",
            expected=TENSORS,
            do="save it again from PEFT with safe_serialization=True" if pickled else "copy the whole folder",
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise GraftuneError(
            f"{file} is damaged", received=str(error), expected="safetensors", do="copy the folder again"
        ) from error


def _heads(model: AdapterKeeper, rest: Tensors) -> tuple[tuple[str, ...], Tensors]:
    """The heads among what is left of a file, and their tensors by our names."""
    heads = {name: name.partition(".")[0] for name in rest}
    strange = [name for name, head in heads.items() if head not in model.anatomy.heads]
    if strange:
        raise GraftuneError(
            "this file holds a tensor that nothing here can take",
            received=strange[0],
            expected="the method's own tensors and those of heads: " + (", ".join(model.anatomy.heads) or "none here"),
            do="load the base, with the head, that the adapter was trained on",
        )
    split = {name: name.rpartition(".") for name in rest}
    copies = {f"parts.{escape(path)}/=.copies.{last}": rest[name] for name, (path, _, last) in split.items()}
    return tuple(dict.fromkeys(heads.values())), copies
