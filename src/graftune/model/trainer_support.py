"""TrainerSupport: what ``transformers.Trainer`` and TRL ask of the model they train, answered for an adapted one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

#: What trainers read on a model and the base can answer; an attribute that a base lacks is lacking here too.
DELEGATED = frozenset(
    {
        "activation_checkpointing_disable",
        "activation_checkpointing_enable",
        "dtype",
        "generation_config",
        "get_input_embeddings",
        "gradient_checkpointing_disable",
        "gradient_checkpointing_enable",
        "hf_device_map",
        "is_activation_checkpointing",
        "is_gradient_checkpointing",
        "loss_type",
        "main_input_name",
        "warnings_issued",
    }
)


class signed_by_base:
    """A ``forward`` whose signature on an instance names the base's inputs, by which Trainer picks columns."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, model: TrainerSupport | None, owner: type | None = None) -> Callable[..., Any]:
        if model is None:
            return self.function
        bound = partial(self.function, model)
        vars(bound)["__signature__"] = model.signature
        return bound


class TrainerSupport(nn.Module):
    """A module with a ``base`` and ``adapters``, of which only the adapters are trained and stored."""

    base: PreTrainedModel
    adapters: nn.ModuleDict
    _keys_to_ignore_on_save = None  # Trainer reads it when a checkpoint lacks keys, and then warns
    model_tags: list[str] | None = None

    def __getattr__(self, name: str) -> Any:
        if name in DELEGATED:
            return getattr(self.base, name)
        return super().__getattr__(name)

    def _get_name(self) -> str:
        """The base's class: by its name Trainer knows whether label smoothing has to shift the labels."""
        return type(self.base).__name__

    @cached_property
    def signature(self) -> inspect.Signature:
        """The base's inputs, as keywords, and ``adapters``."""
        own = inspect.signature(type(self).forward).parameters["adapters"]
        inputs = [p for p in inspect.signature(self.base.forward).parameters.values() if p.kind != p.VAR_POSITIONAL]
        named = [p if p.kind == p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY) for p in inputs]
        return inspect.Signature([own, *named])

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the base's loss takes ``num_items_in_batch``, as Trainer itself finds it out."""
        takes_any = any(p.kind == p.VAR_KEYWORD for p in self.signature.parameters.values())
        return bool(getattr(self.base, "accepts_loss_kwargs", takes_any))

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Keep tags for a model card; the base, which is not what was trained, gets none."""
        fresh = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*(self.model_tags or []), *fresh]))

    @property
    def _stored(self) -> nn.ModuleDict:
        return nn.ModuleDict({"adapters": self.adapters})

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """The adapters' tensors, generators included, under ``adapters.<name>``; the base's are in ``base``."""
        return self._stored.state_dict(*args, **options)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Set the adapters' tensors; the base is not reached. Raises RuntimeError for tensors that do not fit."""
        return self._stored.load_state_dict(state_dict, strict, assign)
