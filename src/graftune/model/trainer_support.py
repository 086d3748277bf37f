"""TrainerSupport: what ``transformers.Trainer`` and TRL ask of the model they train, answered for an adapted one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MethodType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.inputs import Inputs
from graftune.model.routing import InUse, Names, Routing
from graftune.parts import ParameterCopy

#: What trainers read on a model and the base can answer; an attribute that a base lacks is lacking here too.
DELEGATED = frozenset(
    {
        "activation_checkpointing_disable",
        "activation_checkpointing_enable",
        "can_generate",
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
        return self.function if model is None else MethodType(model.signed(self.function), model)


class TrainerSupport(nn.Module):
    """A module with a ``base`` and ``adapters``, of which only the adapters are trained and stored."""

    base: PreTrainedModel
    adapters: nn.ModuleDict
    anatomy: Anatomy
    _routing: Routing
    _inputs: Inputs
    _caches: bool
    _keys_to_ignore_on_save = None  # Trainer reads it when a checkpoint lacks keys, and then warns
    model_tags: list[str] | None = None
    _signed: Callable[..., Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name in DELEGATED:
            return getattr(self.base, name)
        return super().__getattr__(name)

    def _get_name(self) -> str:
        """The base's class: by its name Trainer knows whether label smoothing has to shift the labels."""
        return type(self.base).__name__

    @cached_property
    def signature(self) -> inspect.Signature:
        """The base's inputs, in its order, and ``adapters``."""
        own = inspect.signature(type(self).forward).parameters["adapters"]
        inputs = [p for p in inspect.signature(self.base.forward).parameters.values() if p.kind != p.VAR_POSITIONAL]
        rest = [p for p in inputs if p.kind == p.VAR_KEYWORD]
        return inspect.Signature([*(p for p in inputs if p.kind != p.VAR_KEYWORD), own, *rest])

    def signed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and its inputs with that signature, made once: the same method each time."""
        if self._signed is None:
            names = [p.name for p in self.signature.parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]

            def forward(model: TrainerSupport, *args: Any, **inputs: Any) -> Any:
                given = dict(zip(names, args, strict=False))
                if len(args) > len(names) or given.keys() & inputs.keys():
                    model.signature.bind(*args, **inputs)  # which says what is wrong
                return function(model, **given, **inputs)

            positional = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
            parameters = [positional, *self.signature.parameters.values()]
            vars(forward)["__signature__"] = inspect.Signature(parameters)
            self._signed = forward
        return self._signed

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

    def base_model(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Any:
        """``forward`` without its logits, and with ``last_hidden_state`` (B, T, d): the trunk, as TRL calls it."""
        if self._caches:
            inputs.setdefault("use_cache", False)
        with self.head.skipped() as read:
            # Not by calling self: trainers put an autocast around that, which must not be entered within itself.
            output = type(self).forward(self, adapters=adapters, **inputs)
        output["last_hidden_state"] = self._inputs.layout.given(read[0])
        return output

    def _active(self) -> list[Adapter]:
        """The adapters of the last call."""
        found = [self.adapters[name] for name in self._routing.active]
        return [adapter for adapter in found if isinstance(adapter, Adapter)]

    def _path(self, module: nn.Module) -> str:
        return self.anatomy.paths[id(module)]

    def get_output_embeddings(self) -> nn.Module | None:
        """The output head as the adapter of the last call has it, for TRL, which reads its weight.

        Raises GraftuneError where that is not the base's weight or one trained copy of it.
        """
        head = self.base.get_output_embeddings()
        parts = [] if head is None else [part for adapter in self._active() for part in adapter.at(self._path(head))]
        if not parts:
            return head
        if len(set(self._routing.names)) > 1 or not all(isinstance(part, ParameterCopy) for part in parts):
            raise GraftuneError(
                "the weight of this head alone leaves out what an adapter adds to it",
                received=f"a {type(parts[0]).__name__} of {self._routing.active[0]!r} on the output head",
                expected="one adapter for all rows, with its head left alone or copied whole",
                do="leave the head out of the adapter's targets, or compute the loss from the logits of forward",
            )
        own = copy.copy(head)
        own._parameters = dict(head._parameters)
        for name, value in parts[0]().items():
            own._parameters[name] = value.to(head._parameters[name].dtype)
        return own
