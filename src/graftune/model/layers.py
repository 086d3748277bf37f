"""Layers: the roles of a transformer block's modules, read off the order of their calls.

The linears before an attention are q, k, v (or one fused map), the first one after it is o, the remaining ones
are the MLP. Where these are no way from states to states (a mixture of experts), the block behind the attention is.
Sizes come from the tensors that arrived.
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


def weight_of(module: nn.Module, weight: Tensor | None = None) -> Tensor:
    """The weight of a linear map, or another in its place, as (d_out, d_in); GPT-2's Conv1D keeps it transposed."""
    if weight is None:
        weight = module.weight  # type: ignore[assignment]
    assert weight is not None
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
    leaves = [e for e in events if not e.is_block]
    # A router may be a linear map by its class and give several tensors (PhiMoE).
    linears = [i for i, e in enumerate(leaves) if is_linear(e.module) and e.output is not None]
    attentions = [i for i, e in enumerate(leaves) if e.attention is not None]
    first = next((i for i in linears), len(leaves))
    pre_norm = any(is_norm(e) for e in leaves[:first])

    def following(event: Event) -> Event | None:
        """The leaf that ran next."""
        at = next(i for i, e in enumerate(events) if e is event)
        return next((e for e in events[at + 1 :] if not e.is_block), None)

    def sublayer(role: str, first: Event, last: Event) -> None:
        """The sub-layer from one linear to another, or of one block."""
        assert last.output is not None
        out, after = last, following(last)
        follows = after is not None and isinstance(after.module, nn.Dropout) and after.input is last.output
        if after is not None and follows and sum(e.module is after.module for e in events) == 1:  # ViT has one for both
            out, after = after, following(after)
        before = next((e for e in leaves if is_norm(e) and e.output is first.input), None)
        layer.sublayers.append(
            SubLayerSite(
                out.path,
                role,
                last.output.shape[-1],
                index,
                first=first.path,
                norm_before=before.path if pre_norm and before else None,
                norm_after=after.path if not pre_norm and after is not None and is_norm(after) else None,
            )
        )

    position = 0
    o: Event | None = None
    for at in attentions:
        call = leaves[at]
        assert call.attention is not None
        layer.attentions.append(replace(call.attention, layer=index))
        before = [i for i in linears if position <= i < at]
        layer.linears += _projections(index, [leaves[i] for i in before], call)
        after = next((i for i in linears if i > at), None)
        position = at + 1
        if after is not None:
            o = leaves[after]
            layer.linears.append(_linear(o, "o", index))
            position = after + 1
            if before:
                sublayer("attention", leaves[before[0]], o)
    rest = [leaves[i] for i in linears if i >= position]
    roles = {2: ("up", "down"), 3: ("gate", "up", "down")} if attentions else {}
    names = roles.get(len(rest), ("",) * len(rest))
    layer.linears += [_linear(e, role, index) for e, role in zip(rest, names, strict=True)]
    layer.linears = list({site.key: site for site in layer.linears}.values())  # a map may run twice (DeBERTa)
    block = None if o is None or (rest and _alike(rest[-1], o)) else _behind(events, o)
    if block is not None:
        sublayer("mlp", block, block)
    elif len(rest) > 1 and attentions and (o is None or _alike(rest[-1], o, flat=True)):
        sublayer("mlp", rest[0], rest[-1])
    return layer


def _alike(event: Event, other: Event, *, flat: bool = False) -> bool:
    """Whether two calls give states of one kind; ``flat`` ones may have rows and columns of the batch in one."""
    mine, its = event.output, other.output
    if mine is None or its is None or mine.shape[-1] != its.shape[-1]:
        return False
    return mine.dim() == its.dim() or (flat and mine.numel() == its.numel())


def _behind(events: list[Event], o: Event) -> Event | None:
    """The outermost block behind an attention with output map ``o`` that gives states as ``o`` does."""
    at = next(i for i, e in enumerate(events) if e is o)
    blocks = [e for e in events[at + 1 :] if e.is_block and not o.path.startswith(f"{e.path}.") and _alike(e, o)]
    return min(blocks, key=lambda e: e.path.count("."), default=None)


def _linear(event: Event, role: str, layer: int) -> LinearSite:
    assert event.module is not None
    inputs, outputs = sizes_of(event.module)
    return LinearSite(event.path, inputs, outputs, role, layer)


def _projections(layer: int, events: list[Event], call: Event) -> list[LinearSite]:
    """q, k and v of an attention call: three maps, or the columns of fused ones in this order."""
    site, query, key, value = call.attention, call.input, call.key, call.output
    assert site is not None and query is not None and key is not None and value is not None
    widths = [query.shape[1] * query.shape[-1], site.heads * site.key_width, site.heads * site.value_width]
    if len(events) == 3 and len(set(e.path for e in events)) == 3:
        events = _in_order(events, query, key, value)
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


def _in_order(events: list[Event], query: Tensor, key: Tensor, value: Tensor) -> list[Event]:
    """The maps that give q, k and v, as seen in what they gave the first token; what is not seen keeps its order.

    A query may be scaled and both may be normed on the way, but position embedding leaves the first token alone.
    """
    left, found = list(events), {}
    for role, tensor in (("v", value), ("k", key), ("q", query)):
        first = tensor.transpose(1, 2).flatten(2)[0, 0]  # (B, H, T, d) -> (H · d,)
        same = [e for e in left if e.output is not None and not e.output.is_meta and _gives(e.output, first)]
        if len(same) == 1:
            found[role] = same[0]
            left = [e for e in left if e is not same[0]]
    return [found.get(role) or left.pop(0) for role in "qkv"]


def _gives(output: Tensor, first: Tensor) -> bool:
    return output.shape[-1] == len(first) and torch.equal(output.flatten(0, -2)[0], first)


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
