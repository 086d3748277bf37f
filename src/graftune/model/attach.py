"""Attachment: how each part reaches its site. One function per part; all of them only register hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.layers import weight_of
from graftune.model.layout import Layout
from graftune.model.routing import Routing
from graftune.parts import (
    Bias,
    Bottleneck,
    LinearSite,
    LowRank,
    ParameterCopy,
    Scale,
    Site,
    SubLayerSite,
    TokenRows,
)


class Handle(Protocol):
    """What a hook registration gives back."""

    def remove(self) -> None: ...


@dataclass(frozen=True)
class Registration:
    """A handle for what a function undoes."""

    remove: Callable[[], None]


class Graft:
    """What a part needs to know where it is attached."""

    def __init__(
        self, name: str, adapter: Adapter, site: Site, anatomy: Anatomy, routing: Routing, layout: Layout
    ) -> None:
        self.name, self.site, self.anatomy, self.routing, self.layout = name, site, anatomy, routing, layout
        #: The adapter's own copies of the module's parameters.
        self.copies: dict[str, nn.Parameter] = {}
        for part in adapter.at(site.path):
            if isinstance(part, ParameterCopy):
                self.copies.update(part())

    @property
    def module(self) -> nn.Module:
        """The module of the base at this site."""
        return self.anatomy.modules[self.site.path]

    def parameter(self, name: str) -> Tensor | None:
        """A parameter of the module as this adapter has it."""
        original: Tensor | None = getattr(self.module, name, None)
        return self.copies[name].to(original.dtype) if original is not None and name in self.copies else original

    def active(self) -> bool:
        return self.name in self.routing.in_force

    def on_rows(self, change: Callable[..., Tensor], target: Tensor, *others: Tensor | None) -> Tensor:
        """``target`` with the adapter's rows changed: change(target rows, other rows …)."""
        if self.routing.covers_all(self.name):
            return change(target, *others)
        rows = self.routing.rows(self.name, target.shape[0], target.device)
        picked = [None if o is None else o.index_select(0, rows) for o in others]
        with self.routing.only(self.name, len(rows)):  # the change may call modules of the base
            changed = change(target.index_select(0, rows), *picked)
        return target.index_copy(0, rows, changed)


@singledispatch
def attach(part: nn.Module, graft: Graft) -> Iterator[Handle]:
    """Register the hooks of ``part`` at the graft's site, and give the handle of each as soon as it is there."""
    raise TypeError(f"no attachment for {type(part).__name__}")


@attach.register
def _(part: TokenRows, graft: Graft) -> Iterator[Handle]:
    def write(module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        virtual = graft.layout.virtual_of(embedded) if graft.active() else None
        if virtual is None:
            return None
        return graft.on_rows(part, embedded, virtual)

    yield graft.module.register_forward_hook(write)


@attach.register
def _(part: LowRank, graft: Graft) -> Iterator[Handle]:
    site = graft.site
    assert isinstance(site, LinearSite)

    def change(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not graft.active():
            return None
        weight, bias = weight_of(module, graft.parameter("weight")), graft.parameter("bias")
        if site.start is not None:
            weight = weight[site.columns]
            bias = None if bias is None else bias[site.columns]
        return _columns(site, output, lambda y: graft.on_rows(lambda y, x: part(x, y, weight, bias), y, args[0]))

    yield graft.module.register_forward_hook(change)


@attach.register
def _(part: Scale, graft: Graft) -> Iterator[Handle]:
    site = graft.site
    assert isinstance(site, LinearSite)

    def scale_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (graft.on_rows(part, args[0]), *args[1:]) if graft.active() else None

    def scale_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return _columns(site, output, lambda y: graft.on_rows(part, y)) if graft.active() else None

    if part.on == "input":
        yield graft.module.register_forward_pre_hook(scale_input)
    else:
        yield graft.module.register_forward_hook(scale_output)


@attach.register
def _(part: Bias, graft: Graft) -> Iterator[Handle]:
    site = graft.site

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not graft.active():
            return None
        return _columns(site, output, lambda y: graft.on_rows(lambda y: y + part(y), y))

    yield graft.module.register_forward_hook(add)


@attach.register
def _(part: Bottleneck, graft: Graft) -> Iterator[Handle]:
    site = graft.site
    assert isinstance(site, SubLayerSite)
    modules = graft.anatomy.modules
    stream: list[Tensor] = []  # the sub-layer's input or the residual stream, from its hook to ours
    norm = modules[site.norm_after] if site.norm_after else None

    def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
        if graft.active():
            stream[:] = [args[0]]

    def function(h: Tensor, x: Tensor | None) -> Tensor:
        if part.reads == "output" or x is None:
            return h + part(h)
        if part.reads == "input":
            return h + part(x)
        joined = h + x
        return h + part(joined if norm is None else norm(joined))

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not graft.active():
            return None
        return graft.on_rows(function, output, stream.pop() if part.reads != "output" else None)

    yield graft.module.register_forward_hook(add)
    if part.reads == "input":
        yield modules[site.first].register_forward_pre_hook(remember)
    elif part.reads == "residual":
        # Pre-norm: the norm reads the residual stream. Post-norm: the sub-layer itself does.
        yield modules[site.norm_before or site.first].register_forward_pre_hook(remember)


@attach.register
def _(part: ParameterCopy, graft: Graft) -> Iterator[Handle]:
    swapped: dict[str, nn.Parameter | None] = {}
    owner, reader = graft.module, graft.anatomy.reader(graft.site.path)

    def swap() -> None:
        for name, copy in part().items():
            original = swapped[name] = owner._parameters[name]
            # A base in bf16 computes in bf16, whatever its trained copies are kept in.
            owner._parameters[name] = copy if original is None else copy.to(original.dtype)

    def restore() -> None:
        for name, original in swapped.items():
            owner._parameters[name] = original
        swapped.clear()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if graft.active() and graft.routing.covers_all(graft.name):
            swap()

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if swapped:
            restore()
            return None
        if not graft.active() or output is None:  # None: the module itself failed
            return None
        # A mixed batch: the module once more, with the copies, on the adapter's own rows.
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not isinstance(output, Tensor) or graft.site.path in graft.anatomy.rowless or not given:
            raise GraftuneError(
                "trained copies of this module's parameters cannot share a batch with other adapters",
                received=f"{graft.site.path} returns {type(output).__name__}, not one entry per row",
                expected="a module that returns one tensor with an entry per row",
                do="use one adapter for the whole batch",
            )
        batch = max([len(graft.routing.names), *(a.shape[0] for a in args if isinstance(a, Tensor) and a.dim() > 1)])
        rows = graft.routing.rows(graft.name, batch, output.device)

        def own(value: Any) -> Any:
            """The adapter's rows of an argument; what all rows share (a vector, a mask of windows) stays whole."""
            if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] != batch:
                return value
            return value.index_select(0, rows)

        swap()
        try:
            with graft.routing.only(graft.name, len(rows)):
                mine = module.forward(*map(own, args), **{k: own(v) for k, v in kwargs.items()})
        finally:
            restore()
        whole = output.expand(batch, *output.shape[1:]) if output.shape[0] == 1 else output
        return whole.index_copy(0, rows, mine.expand(len(rows), *mine.shape[1:]).to(whole.dtype))

    yield reader.register_forward_pre_hook(before, with_kwargs=True)
    yield reader.register_forward_hook(after, with_kwargs=True, always_call=True)


def _columns(site: Site, output: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change all of a linear map's output, or the columns of a fused one."""
    if not isinstance(site, LinearSite) or site.start is None:
        return change(output)
    changed = change(output[..., site.columns])
    if site.every is not None:
        return output.index_copy(-1, torch.tensor(site.columns, device=output.device), changed)
    return torch.cat([output[..., : site.start], changed, output[..., site.stop :]], dim=-1)
