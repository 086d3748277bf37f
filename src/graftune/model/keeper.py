"""Keeping adapters: made, attached to one frozen base under a name, saved and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError, unknown
from graftune.methods.method import Method
from graftune.model.adapter import Adapter, Count
from graftune.model.anatomy import Anatomy
from graftune.model.attach import Graft, Handle, attach
from graftune.model.context import Context, copied_names
from graftune.model.inputs import Inputs
from graftune.model.merge import merged
from graftune.model.plain_calls import kept_plain
from graftune.model.positions import read_positions
from graftune.model.prefixes import Prefixes
from graftune.model.routing import Names, Routing
from graftune.model.trainer_support import TrainerSupport
from graftune.model.visual import VisualPrompts
from graftune.parts import HiddenRows, KeyValueRows, LayerSite, NamedModules, ParameterCopy


class AdapterKeeper(TrainerSupport):
    """A frozen base and its adapters by name. How a batch is run with them is `AdaptedModel`'s."""

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
        self._plain: list[Handle] = []
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
        head_names = [n for n in context.parameters if n.startswith(tuple(f"{h}." for h in heads))]
        if heads and not head_names:
            raise unknown("head", heads[0], self.anatomy.heads)
        grafts = build.grafts + context.copies(set(head_names) - copied_names(build.grafts))
        if method.trainable and not grafts:
            raise GraftuneError(
                f"{type(method).__name__} fits no site of this base",
                received=type(self.base).__name__,
                expected="a site that the method changes, or a new head",
                do="choose another method: `graftune inspect` shows which fit",
            )
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
            if not self.adapters:
                self._plain.extend(kept_plain(self.base, self._routing))
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
        if name in names_among(self._in_use):
            self._in_use = None
        while self._plain and not self.adapters:
            self._plain.pop().remove()

    def close(self) -> None:
        """Take all adapters away."""
        for name in list(self.adapters):
            self.remove(name)

    def use(self, adapters: Names) -> None:
        """Choose what calls that do not say ``adapters`` use: one name or None per row, or one for all.

        Raises GraftuneError for an unknown name. Until the first call, and once an adapter in use is removed,
        that is the plain base.
        """
        for name in names_among(adapters):
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


def names_among(adapters: Names) -> list[str]:
    """The names among ``adapters``."""
    return [name for name in ([adapters] if isinstance(adapters, str) else adapters or ()) if name is not None]
