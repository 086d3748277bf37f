"""AdaptedModel: one frozen base and any number of adapters, chosen per row of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from graftune.errors import GraftuneError, unknown
from graftune.methods.method import Method
from graftune.model.adapter import Adapter, Count
from graftune.model.anatomy import Anatomy
from graftune.model.attach import Graft, Handle, attach
from graftune.model.context import Context, copied_names
from graftune.model.head import Head
from graftune.model.layout import Arranged, Layout, arrange, restore
from graftune.model.merge import merged
from graftune.model.prefixes import Prefixes
from graftune.model.routing import Names, Routing
from graftune.model.trainer_support import TrainerSupport, signed_by_base
from graftune.parts import KeyValueRows, ParameterCopy


class InUse(Enum):
    """What ``adapters`` is where a call does not say it: None says the plain base."""

    ADAPTERS = "the adapters in use"


class AdaptedModel(TrainerSupport):
    """A Transformers model with adapters beside it; the base itself is never changed.

    ``base`` is any ``PreTrainedModel``; its parameters are frozen. ``tokenizer`` is only needed by methods
    that start from words. While training, the base runs without dropout unless ``base_dropout`` is set.
    After ``use(name)`` it trains in ``transformers.Trainer`` and ``trl.SFTTrainer`` as it is.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: Callable[..., Any] | None = None,
        *,
        base_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.base = base
        self.base.requires_grad_(False)
        self.tokenizer = tokenizer
        self.base_dropout = base_dropout
        self.adapters = nn.ModuleDict()
        self.anatomy = Anatomy(base)
        self._routing = Routing()
        self._layout = Layout()
        self._prefixes = Prefixes(self.anatomy, self._routing)
        self._handles: dict[str, list[Handle]] = {}
        self._in_use: Names = None
        accepted = self.signature.parameters
        # Models that count positions from the ids themselves have a padding index in their table of positions.
        self._counted = next(
            (
                m.padding_idx
                for path, m in self.anatomy.modules.items()
                if isinstance(m, nn.Embedding) and m.padding_idx is not None and "position" in path
            ),
            None,
        )
        self._caches = "use_cache" in accepted
        self._positions = "position_ids" in accepted and not base.config.is_encoder_decoder
        self.train(base.training)

    @property
    def config(self) -> Any:
        """The base's config."""
        return self.base.config

    @property
    def device(self) -> torch.device:
        """The base's device."""
        return self.base.device

    @property
    def positions(self) -> int | None:
        """How many positions the base has, where it says so."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    # Adapters ----------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        method: Method,
        *,
        heads: tuple[str, ...] = (),
        labels: tuple[str, ...] = (),
        seed: int | None = None,
    ) -> Adapter:
        """Make a new adapter.

        ``heads`` names modules of the base that each adapter trains its own copy of (a classifier);
        ``labels`` are class names for methods that start from them; ``seed`` fixes the start values.
        Raises GraftuneError for a name in use, a name with a dot, or a method that fits no site.
        """
        if name in self.adapters or not name or "." in name:
            raise GraftuneError(
                "this adapter name cannot be used",
                received=repr(name),
                expected="a name without dots that no adapter has yet",
                do=f"remove {name!r} first, or choose another name",
            )
        context = Context(self.base, self.anatomy, self.tokenizer, labels)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            build = method.build(context)
        if method.trainable and not build.grafts:
            raise GraftuneError(f"{type(method).__name__} fits no site of this base", received=type(self.base).__name__)
        head_names = [n for n in context.parameters if n.startswith(tuple(f"{h}." for h in heads))]
        if heads and not head_names:
            raise unknown("head", heads[0], self.anatomy.heads)
        grafts = build.grafts + context.copies(set(head_names) - copied_names(build.grafts))
        adapter = Adapter(method, grafts, build.generators, heads).to(self.base.device)
        return self.attach(name, adapter)

    def attach(self, name: str, adapter: Adapter) -> Adapter:
        """Register an adapter's hooks under a name. Raises GraftuneError for a shift of positions that are fixed."""
        if adapter.offset and not self._positions:
            raise GraftuneError(
                "this base does not let its positions be shifted",
                received=f"{type(adapter.method).__name__} with shifted positions on {type(self.base).__name__}",
                expected="a base that takes position_ids",
                do="leave positions where they are: shift_positions=False",
            )
        handles: list[Handle] = []
        for key, part in adapter.parts.items():
            site = adapter.sites[key]
            if isinstance(part, KeyValueRows):
                handles.append(self._prefixes.add(name, site, part))
            else:
                handles += attach(part, Graft(name, site, self.anatomy, self._routing, self._layout))
        self.adapters[name] = adapter
        self._handles[name] = handles
        self.train(self.training)
        return adapter

    def remove(self, name: str) -> None:
        """Take an adapter away; with the last one the base is as it was before."""
        self.adapter(name)
        for handle in self._handles.pop(name):
            handle.remove()
        del self.adapters[name]
        if name in _named(self._in_use):
            self._in_use = None

    def close(self) -> None:
        """Take all adapters away."""
        for name in list(self.adapters):
            self.remove(name)

    def use(self, adapters: Names) -> None:
        """Choose what calls that do not say ``adapters`` use: one name or None per row, or one for all.

        Raises GraftuneError for an unknown name. Until the first call, and once an adapter in use is removed,
        that is the plain base.
        """
        for name in _named(adapters):
            self.adapter(name)
        self._in_use = adapters

    def adapter(self, name: str) -> Adapter:
        """The adapter of this name. Raises GraftuneError for an unknown one."""
        if name not in self.adapters:
            raise unknown("adapter", name, self.adapters)
        found = self.adapters[name]
        assert isinstance(found, Adapter)
        return found

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The parameters that training this adapter changes."""
        return list(self.adapter(name).parameters())

    def count(self, name: str) -> Count:
        """How many parameters the adapter trains and stores."""
        return self.adapter(name).count()

    def merge(self, name: str) -> PreTrainedModel:
        """A copy of the base with the adapter folded into its weights: same function, no extra cost.

        Raises GraftuneError for methods where no weights give the same function.
        """
        return merged(self.base, self.anatomy, self.adapter(name))

    def save(self, name: str, path: str | Path) -> Path:
        """Write the adapter as a folder: ``adapter.json`` and ``adapter.safetensors``."""
        from graftune.checkpoint import native

        return native.save(self.adapter(name), self.base, Path(path))

    def load(self, name: str, path: str | Path, *, trainable: bool = False) -> Adapter:
        """Read an adapter folder: Graftune's own, or Hugging Face PEFT's.

        ``trainable`` brings back the generator that was kept beside the export, to go on training.
        """
        from graftune import checkpoint

        return checkpoint.load(self, name, Path(path), trainable=trainable)

    # Running -----------------------------------------------------------------------------------------------

    @signed_by_base
    def forward(self, *, adapters: Names | InUse = InUse.ADAPTERS, labels: Any = None, **inputs: Any) -> Any:
        """Run the base with an adapter per row.

        ``adapters``: one name or None per row, or one for all; left out, what ``use`` chose. Other arguments are
        the base's own; ids at or above the number of embedding rows are virtual tokens. Per-token outputs have
        the caller's columns.
        """
        if labels is not None:  # named because Trainer reads the names of labels from the class
            inputs["labels"] = labels
        checkpointed = [layer for layer in self._checkpointed() if self.training and layer.training]
        if checkpointed:
            _refuse_reentrant(checkpointed)
            if self._caches:
                inputs.setdefault("use_cache", False)  # recomputing a layer would fill its cache twice
        with self._routed(adapters, inputs) as (ready, arranged):
            output = self.base(**ready)
        return output if arranged is None else restore(output, arranged, len(self._routing.names))

    def hidden(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Tensor:
        """The hidden states (B, T, d) that the base's head would read: ``forward`` without its logits."""
        states: Tensor = self.base_model(adapters=adapters, **inputs).last_hidden_state
        return states

    def base_model(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Any:
        """``forward`` without its logits, and with ``last_hidden_state`` (B, T, d): the trunk, as TRL calls it."""
        if self._caches:
            inputs.setdefault("use_cache", False)
        with self.head.skipped() as read:
            output = self(adapters=adapters, **inputs)
        output["last_hidden_state"] = self._layout.given(read[0])
        return output

    def get_output_embeddings(self) -> nn.Module | None:
        """The output head as the adapter of the last call has it, for TRL, which reads its weight.

        Raises GraftuneError where that is not the base's weight or one trained copy of it.
        """
        head = self.base.get_output_embeddings()
        parts = [] if head is None else [part for name in self._routing.active for part in self._at(head, name)]
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

    def _at(self, module: nn.Module, name: str) -> list[nn.Module]:
        """The parts that an adapter has at a module of the base."""
        adapter, path = self.adapter(name), self.anatomy.paths[id(module)]
        return [part for key, part in adapter.parts.items() if adapter.sites[key].path == path]

    def score(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of chosen hidden states (n, d), for the adapter of the last call.

        Raises GraftuneError where that call used several adapters of which one changes the head.
        """
        if len(set(self._routing.names)) > 1:
            path = self.anatomy.paths[id(self.head.module)]
            for name in self._routing.active:
                if self._at(self.head.module, name):
                    raise GraftuneError(
                        "hidden states of several adapters cannot share a head that one of them changes",
                        received=f"a part of {name!r} at {path}",
                        expected="one adapter for all rows",
                        do="score the rows of each adapter after a call of their own, or use forward",
                    )
        return self.head(hidden)

    @cached_property
    def head(self) -> Head:
        """The base's output head. Raises GraftuneError where it has none."""
        self._routing.set(None, 1, ())  # the base is run once as it is
        head = Head(self.base)
        self.train(self.training)  # that run has put the layers that recompute to sleep
        return head

    @torch.no_grad()
    def generate(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Any:
        """``base.generate`` with an adapter per row; returns the given ids and the new tokens after them."""
        with self._routed(adapters, inputs) as (ready, arranged):
            given = inputs.get("input_ids")
            if arranged is not None and not self.base.config.is_encoder_decoder:
                for limit in ("max_length", "min_length"):
                    if limit in ready:
                        ready[limit] += arranged.added
            output = self.base.generate(**ready)
        if arranged is None or given is None or self.base.config.is_encoder_decoder:
            return output
        ids = output if isinstance(output, Tensor) else output.sequences
        prompt = given.repeat_interleave(ids.shape[0] // given.shape[0], dim=0)
        ids = torch.cat([prompt, ids[:, prompt.shape[1] + arranged.added :]], dim=1)
        if isinstance(output, Tensor):
            return ids
        output.sequences = ids
        return output

    def train(self, mode: bool = True) -> AdaptedModel:
        """Training mode of the adapters; the base keeps its dropout off unless ``base_dropout`` is set."""
        super().train(mode)
        if mode and not self.base_dropout:
            self.base.eval()
            for layer in self._checkpointed():
                layer.training = True  # a layer recomputes only in training mode
            for module in self.base.modules():
                if hasattr(module, "neftune_noise_alpha"):
                    module.training = True  # Trainer's NEFTune adds its noise only in training mode
        return self

    def _checkpointed(self) -> Iterator[nn.Module]:
        """The base's layers that recompute their activations in the backward pass."""
        for module in self.base.modules():
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                yield module

    @contextmanager
    def _routed(
        self, adapters: Names | InUse, inputs: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], Arranged | None]]:
        """Set the routing, put virtual tokens in place and shift positions for one call of the base."""
        main = inputs.get("input_ids", inputs.get(self.base.main_input_name, inputs.get("inputs_embeds")))
        if main is None:
            raise GraftuneError(
                "the batch has no input",
                received=", ".join(inputs) or "nothing",
                expected=f"input_ids or {self.base.main_input_name}",
            )
        names = self._in_use if isinstance(adapters, InUse) else adapters
        self._routing.set(names, main.shape[0], list(self.adapters))
        for name in self._routing.active:
            self.adapter(name).refresh()
        arranged = self._arrange(inputs)
        ready = dict(inputs) if arranged is None else {**inputs, **arranged.inputs}
        self._layout.virtual = None if arranged is None else arranged.virtual
        self._layout.kept = None if arranged is None else arranged.kept
        hook = self.base.register_forward_pre_hook(self._position, with_kwargs=True)
        try:
            yield ready, arranged
        finally:
            hook.remove()

    def _arrange(self, inputs: dict[str, Any]) -> Arranged | None:
        """Virtual tokens in place, or None where no row of this call has any."""
        ids = inputs.get("input_ids")
        counts = [self.adapter(n).virtual_tokens if n is not None else 0 for n in self._routing.names]
        if ids is None:
            if any(counts):
                raise GraftuneError(
                    "virtual tokens need input_ids",
                    received=", ".join(inputs),
                    expected="input_ids",
                    do="pass ids, or use a method without virtual tokens",
                )
            return None
        rows = self.base.get_input_embeddings().num_embeddings
        placed = bool((ids >= rows).any())
        if not placed and (not any(counts) or inputs.get("past_key_values") is not None):
            return None
        for row, name in enumerate(self._routing.names):
            if name is not None and not self.adapter(name).method.front and not bool((ids[row] >= rows).any()):
                raise GraftuneError(
                    f"row {row} holds no virtual tokens, and its adapter's do not stand in front",
                    received=f"ids below {rows} for adapter {name!r}",
                    expected=f"the template {self.adapter(name).method.template!r}, virtual token j as id {rows} + j",
                    do="encode the text with the adapter's template (graftune.tasks.Template)",
                )
        tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
        encoder = not self.base.config.is_encoder_decoder and not self.anatomy.attentions[0].causal
        arranged = arrange(tensors, counts, rows, after_first=encoder)
        if arranged.added and inputs.get("position_ids") is not None:
            raise GraftuneError(
                "positions that are given leave no room for the virtual tokens in front of the text",
                received="position_ids, as packed and padding-free batches have them",
                expected="no position_ids, or virtual tokens placed in the ids by the adapter's template",
                do="train without packing and padding_free, or use a method without virtual tokens",
            )
        return arranged

    def _position(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Count positions from the first real token, and shift them by what the adapters ask for."""
        ids = kwargs.get("input_ids")
        if not self._positions or ids is None:
            return None
        positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
        offsets = [0 if n is None else self.adapter(n).offset for n in self._routing.expanded(ids.shape[0])]
        shift = torch.tensor(offsets, device=ids.device)[:, None]
        cache = kwargs.get("past_key_values")
        seen = 0 if cache is None else cache.get_seq_length()
        if self._counted is not None and positions is None:
            real = (ids != self._counted).long()
            counted = (real.cumsum(-1) + seen + shift) * real + self._counted
            return (args, {**kwargs, "position_ids": counted}) if any(offsets) else None
        padded = positions is None and isinstance(mask, Tensor) and mask.dim() == 2 and bool((mask[:, 0] == 0).any())
        if not padded and not any(offsets):
            return None
        if positions is None:
            if mask is None:
                positions = torch.arange(seen, seen + ids.shape[1], device=ids.device)[None]
            else:
                positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return args, {**kwargs, "position_ids": positions + shift}


def _named(adapters: Names) -> list[str]:
    """The names among ``adapters``."""
    return [name for name in ([adapters] if isinstance(adapters, str) else adapters or ()) if name is not None]


def _refuse_reentrant(layers: list[nn.Module]) -> None:
    """Reentrant checkpointing gives no gradient to what enters a layer beside its input, as our parts do."""
    for layer in layers:
        function = layer._gradient_checkpointing_func
        if isinstance(function, partial) and function.keywords.get("use_reentrant") is not False:
            raise GraftuneError(
                "adapters do not train under reentrant gradient checkpointing",
                received=f"use_reentrant={function.keywords.get('use_reentrant')}",
                expected="use_reentrant=False, the default of Transformers",
                do='base.gradient_checkpointing_enable({"use_reentrant": False})',
            )
