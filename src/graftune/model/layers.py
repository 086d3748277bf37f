"""Layers: the roles of a transformer block's modules, read off the order of their calls.

The linears before an attention are q, k, v (or one fused map), the first one after it is o, the remaining ones
are the MLP. Sizes come from the tensors that arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from graftune.errors import GraftuneError
from graftune.model.trace import Event, is_norm
from graftune.parts.sites import AttentionSite, LinearSite, SubLayerSite


@dataclass
class Layer:
    """One transformer block: its linear maps by role, its attentions and the outputs of its sub-layers."""

    index: int
    path: str
    linears: list[LinearSite] = field(default_factory=list)
    attentions: list[AttentionSite] = field(default_factory=list)
    sublayers: list[SubLayerSite] = field(default_factory=list)


def is_linear(module: nn.Module | None) -> bool:
    """Whether a module is a linear map that methods can change."""
    return isinstance(module, nn.Linear | Conv1D)


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a linear map as (d_out, d_in); GPT-2's Conv1D keeps it the other way round."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, Conv1D) else weight


def is_quantized(parameter: Tensor) -> bool:
    """Whether a parameter's numbers stand for others: packed into integers, or a class of their own."""
    return not parameter.is_floating_point() or type(parameter.data) is not Tensor


def refuse_quantized(what: str, name: str, parameter: Tensor) -> None:
    """Raise GraftuneError for a quantized parameter, where ``what`` needs the plain weights."""
    if is_quantized(parameter):
        raise GraftuneError(
            f"{what} needs the plain weights of the base",
            received=f"{name}, which is quantized",
            expected="weights in floating point, or a method that leaves them alone, such as LoRA or a prefix",
            do="load the base without quantize",
        )


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map, whose weight may be packed."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    outputs, inputs = weight_of(module).shape
    return inputs, outputs


def read_layer(index: int, path: str, events: list[Event]) -> Layer:
    """The layer behind the events of one dry run inside it."""
    layer = Layer(index, path)
    linears = [i for i, e in enumerate(events) if is_linear(e.module)]
    attentions = [i for i, e in enumerate(events) if e.attention is not None]
    first = next((i for i in linears), len(events))
    pre_norm = any(is_norm(e) for e in events[:first])

    def sublayer(role: str, start: int, stop: int) -> None:
        """The sub-layer whose first linear is event ``start`` and whose last is event ``stop``."""
        out = stop
        after = events[stop + 1] if stop + 1 < len(events) else None
        follows = after is not None and isinstance(after.module, nn.Dropout) and after.input is events[stop].output
        if follows and sum(e.module is events[stop + 1].module for e in events) == 1:  # ViT has one for both
            out = stop + 1
        before = next((e for e in events[:start] if is_norm(e) and e.output is events[start].input), None)
        norm_after = events[out + 1] if out + 1 < len(events) and is_norm(events[out + 1]) else None
        layer.sublayers.append(
            SubLayerSite(
                events[out].path,
                role,
                sizes_of(events[stop].module)[1],  # type: ignore[arg-type]
                index,
                first=events[start].path,
                norm_before=before.path if pre_norm and before else None,
                norm_after=norm_after.path if not pre_norm and norm_after else None,
            )
        )

    position = 0
    for at in attentions:
        site, query, value = events[at].attention, events[at].input, events[at].output
        assert site is not None and query is not None and value is not None
        layer.attentions.append(replace(site, layer=index))
        before = [i for i in linears if position <= i < at]
        layer.linears += _projections(index, [events[i] for i in before], site, query, value)
        after = next((i for i in linears if i > at), None)
        position = at + 1
        if after is not None:
            layer.linears.append(_linear(events[after], "o", index))
            position = after + 1
            if before:
                sublayer("attention", before[0], after)
    rest = [i for i in linears if i >= position]
    names = {2: ("up", "down"), 3: ("gate", "up", "down")}.get(len(rest), ("",) * len(rest))
    layer.linears += [_linear(events[i], role, index) for i, role in zip(rest, names, strict=True)]
    if len(rest) > 1:
        sublayer("mlp", rest[0], rest[-1])
    return layer


def _linear(event: Event, role: str, layer: int) -> LinearSite:
    assert event.module is not None
    inputs, outputs = sizes_of(event.module)
    return LinearSite(event.path, inputs, outputs, role, layer)


def _projections(
    layer: int, events: list[Event], site: AttentionSite, query: Tensor, value: Tensor
) -> list[LinearSite]:
    """q, k and v: three maps in this order, or the columns of fused ones."""
    widths = [query.shape[1] * query.shape[-1], site.heads * site.key_width, site.heads * site.value_width]
    outputs = [sizes_of(e.module)[1] for e in events if e.module is not None]
    if outputs == widths:
        return [_linear(e, role, layer) for e, role in zip(events, "qkv", strict=True)]
    if len(events) == 1 and len(set(widths)) == 1 and outputs == [3 * widths[0]] and _by_heads(events[0], value):
        inputs, _ = sizes_of(events[0].module)  # type: ignore[arg-type]
        own = site.value_width
        return [
            LinearSite(events[0].path, inputs, widths[0], role, layer, i * own, (i + 1) * own, 3 * own)
            for i, role in enumerate("qkv")
        ]
    sites: list[LinearSite] = []
    roles = list(zip("qkv", widths, strict=True))
    for event in events:
        assert event.module is not None
        inputs, width = sizes_of(event.module)
        taken: list[tuple[str, int]] = []
        while roles and sum(w for _, w in taken) < width:
            taken.append(roles.pop(0))
        if sum(w for _, w in taken) != width:  # some other design: leave its maps without a role
            return [_linear(e, "", layer) for e in events]
        start = 0
        for role, size in taken:
            whole = len(taken) == 1
            sites.append(
                LinearSite(
                    event.path,
                    inputs,
                    size,
                    role,
                    layer,
                    None if whole else start,
                    None if whole else start + size,
                )
            )
            start += size
    return sites


def _by_heads(fused: Event, value: Tensor) -> bool:
    """Whether a map gives q, k and v of one head after the other (GPT-NeoX, BLOOM), as seen in what it gave."""
    given = fused.output
    if given is None or given.is_meta:
        return False
    heads, _, width = value.shape[1:]
    given = given.reshape(-1, heads, 3, width)[:, :, 2]  # (B · T, H, d)
    return torch.equal(given, value.transpose(1, 2).reshape(-1, heads, width))


def whole(sites: list[LinearSite]) -> list[LinearSite]:
    """Fused maps once, as one map, instead of their columns."""
    merged: dict[str, LinearSite] = {}
    for site in sites:
        if site.start is None:
            merged[site.path] = site
        else:
            known = merged.get(site.path)
            width = site.outputs + (known.outputs if known else 0)
            merged[site.path] = LinearSite(site.path, site.inputs, width, "", site.layer)
    return list(merged.values())
