"""AdaptedModel: one frozen base and any number of adapters, chosen per row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError, unknown
from graftune.methods.method import Method
from graftune.model import generation
from graftune.model.adapter import Adapter, Count
from graftune.model.anatomy import Anatomy
from graftune.model.attach import Graft, Handle, attach
from graftune.model.context import Context, copied_names
from graftune.model.head import Head
from graftune.model.inputs import Inputs
from graftune.model.layout import Arranged, restore
from graftune.model.merge import merged
from graftune.model.positions import read_positions
from graftune.model.prefixes import Prefixes
from graftune.model.recompute import RecomputeWithoutDropout, checkpointed, refuse_reentrant
from graftune.model.routing import InUse, Names, Routing
from graftune.model.trainer_support import TrainerSupport, signed_by_base
from graftune.model.visual import VisualPrompts
from graftune.parts import HiddenRows, KeyValueRows, LayerSite, NamedModules, ParameterCopy


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
        self.adapters: nn.ModuleDict = NamedModules()
        self.anatomy = Anatomy(base)
        self._routing = Routing()
        self._prefixes = Prefixes(self.anatomy, self._routing)
        self._visual = VisualPrompts(self.anatomy, self._routing)
        self._attached: dict[str, ExitStack] = {}
        self._recomputing: list[Handle] = []
        self._in_use: Names = None
        accepted = self.signature.parameters
        self._caches = "use_cache" in accepted
        counted = read_positions(base)
        self._inputs = Inputs(base, self.anatomy, self._routing, self.adapters, "position_ids" in accepted, counted)
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
        """How many positions a row of text can use: those of the base's position table that are not set aside.

        None where nothing limits them (T5).
        """
        return self._inputs.positions.text

    @property
    def target_positions(self) -> int | None:
        """How many positions a target of an encoder-decoder can use; None where nothing limits them."""
        return self._inputs.positions.target

    def room(self, name: str | None) -> int | None:
        """The longest text that fits beside an adapter's virtual tokens and its shift of positions.

        ``name`` is None for the plain base; the answer is None where nothing limits the text. Raises GraftuneError
        for an unknown name.
        """
        taken = 0 if name is None else self.adapter(name).virtual_tokens + self.adapter(name).offset
        return None if self.positions is None else max(self.positions - taken, 0)

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
        self._check_name(name)
        context = Context(self.base, self.anatomy, self.tokenizer, labels)
        self._routing.set(None, 1, ())  # a method may run the base, as it is
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
        """Register an adapter's hooks under a name, or none of them.

        Raises GraftuneError for a name that ``add`` would not take, or a shift of positions that are fixed.
        """
        self._check_name(name)
        if adapter.offset and not self._inputs.shiftable:
            raise GraftuneError(
                "this base does not let its positions be shifted",
                received=f"{type(adapter.method).__name__} with shifted positions on {type(self.base).__name__}",
                expected="a base that takes position_ids",
                do="leave positions where they are: shift_positions=False",
            )
        # Copies first: in a mixed batch they run their module again, and what is added to it comes behind.
        keys = sorted(adapter.parts, key=lambda key: not isinstance(adapter.parts[key], ParameterCopy))
        with ExitStack() as stack:
            for key in keys:
                for handle in self._hooks(name, adapter, key):
                    stack.callback(handle.remove)
            self.adapters[name] = adapter
            stack.callback(self.adapters.pop, name)
            self.train(self.training)
            self._attached[name] = stack.pop_all()
        return adapter

    def _hooks(self, name: str, adapter: Adapter, key: str) -> Iterator[Handle]:
        """Attach one part of an adapter."""
        part, site = adapter.parts[key], adapter.sites[key]
        if isinstance(part, KeyValueRows):
            yield self._prefixes.add(name, site, part)
        elif isinstance(part, HiddenRows):
            assert isinstance(site, LayerSite)
            yield self._visual.add(name, site, part)
        else:
            yield from attach(part, Graft(name, adapter, site, self.anatomy, self._routing, self._inputs.layout))

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str) or not name or "." in name or name in self.adapters:
            raise GraftuneError(
                "this adapter name cannot be used",
                received=repr(name),
                expected="a name without dots that no adapter has yet",
                do=f"remove {name!r} first, or choose another name",
            )

    def remove(self, name: str) -> None:
        """Take an adapter away; with the last one the base is as it was before."""
        self.adapter(name)
        self._attached.pop(name).close()
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
        layers = [layer for layer in checkpointed(self.base) if self.training and layer.training]
        if layers:
            refuse_reentrant(layers)
            if self._caches:
                inputs.setdefault("use_cache", False)  # recomputing a layer would fill its cache twice
        plain = inputs.get("return_dict", self.config.return_dict) is False
        with self._routed(adapters, inputs) as (ready, arranged):
            if plain and arranged is not None:
                ready["return_dict"] = True  # by whose names the output is restored
            output = self.base(**ready)
        if arranged is None:
            return self._visual.given(output)
        output = restore(output, arranged, len(self._routing.names))
        return output.to_tuple() if plain else output

    def hidden(self, *, adapters: Names | InUse = InUse.ADAPTERS, **inputs: Any) -> Tensor:
        """The hidden states (B, T, d) that the base's head would read: ``forward`` without its logits."""
        states: Tensor = self.base_model(adapters=adapters, **inputs).last_hidden_state
        return states

    def score(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of chosen hidden states (n, d), for the adapter of the last call.

        Raises GraftuneError where that call used several adapters of which one changes the head.
        """
        if len(set(self._routing.names)) > 1:
            path = self.anatomy.paths[id(self.head.module)]
            for name in self._routing.active:
                if self.adapter(name).at(path):
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
    def generate(self, *args: Any, adapters: Names | InUse = InUse.ADAPTERS, **options: Any) -> Any:
        """``base.generate`` with an adapter per row; returns the given ids and the new tokens after them.

        Arguments are those of ``base.generate``. Without any input it starts from the base's first token (bos).
        """
        names = self._in_use if isinstance(adapters, InUse) else adapters
        rows = 1 if names is None or isinstance(names, str) else len(names)
        inputs = generation.named(self.base, args, options, rows)
        with self._routed(adapters, inputs) as (ready, arranged):
            output = self.base.generate(**generation.fitted(self.base, ready, arranged))
        given = inputs.get("input_ids")
        if arranged is None or given is None or self.base.config.is_encoder_decoder:
            return output
        return generation.with_given(output, given, arranged)

    def train(self, mode: bool = True) -> AdaptedModel:
        """Training mode of the adapters; the base keeps its dropout off unless ``base_dropout`` is set."""
        super().train(mode)
        while self._recomputing:
            self._recomputing.pop().remove()
        if mode and not self.base_dropout:
            self.base.eval()
            self._recomputing += [RecomputeWithoutDropout(layer) for layer in checkpointed(self.base)]
            for module in self.base.modules():
                if hasattr(module, "neftune_noise_alpha"):
                    module.training = True  # Trainer's NEFTune adds its noise only in training mode
        return self

    @contextmanager
    def _routed(
        self, adapters: Names | InUse, inputs: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], Arranged | None]]:
        """Set the routing, put virtual tokens in place and shift positions for one call of the base."""
        known = ("input_ids", self.base.main_input_name, "inputs_embeds", "encoder_outputs")
        main = next((inputs[name] for name in known if inputs.get(name) is not None), None)
        if main is None:
            raise GraftuneError(
                "the batch has no input",
                received=", ".join(inputs) or "nothing",
                expected=f"input_ids or {self.base.main_input_name}",
            )
        if not isinstance(main, Tensor):  # what an encoder gave
            main = main[0]
        names = self._in_use if isinstance(adapters, InUse) else adapters
        self._routing.set(names, main.shape[0], list(self.adapters))
        for name in self._routing.active:
            self.adapter(name).refresh()
        with self._inputs.placed(inputs) as placed:
            yield placed


def _named(adapters: Names) -> list[str]:
    """The names among ``adapters``."""
    return [name for name in ([adapters] if isinstance(adapters, str) else adapters or ()) if name is not None]
