"""Anatomy: the map of a base's sites, read off one dry run rather than off names.

A dry run records, in order, which leaf modules ran inside each layer and when attention was called. From
that order follow the roles: the linears before an attention are q, k, v (or one fused map), the first one
after it is o, the remaining ones are the MLP. Sizes come from the tensors that arrived.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from graftune.errors import GraftuneError, unknown
from graftune.model import attention
from graftune.parts.sites import AttentionSite, EmbeddingSite, LinearSite, SubLayerSite

ROLES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass
class Layer:
    """One transformer block: its linear maps by role, its attentions and the outputs of its sub-layers."""

    index: int
    path: str
    linears: list[LinearSite] = field(default_factory=list)
    attentions: list[AttentionSite] = field(default_factory=list)
    sublayers: list[SubLayerSite] = field(default_factory=list)


@dataclass
class _Event:
    """One call seen in the dry run: of a leaf module, or (module None) of attention."""

    path: str
    module: nn.Module | None
    input: Tensor | None
    output: Tensor | None
    attention: AttentionSite | None = None


def is_linear(module: nn.Module | None) -> bool:
    """Whether a module is a linear map that methods can change."""
    return isinstance(module, nn.Linear | Conv1D)


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a linear map as (d_out, d_in); GPT-2's Conv1D keeps it the other way round."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, Conv1D) else weight


def _widths(module: nn.Module) -> tuple[int, int]:
    outputs, inputs = weight_of(module).shape
    return inputs, outputs


class Anatomy:
    """Layers, linears, embedding and heads of one base.

    ``linears`` holds every linear map of the base except its heads, with role "" where the order of calls
    did not tell one.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self.modules: dict[str, nn.Module] = dict(base.named_modules())
        self.paths = {id(module): path for path, module in self.modules.items()}
        self.layers: list[Layer] = []
        calls = _dry_run(base, self)
        for number, (path, events) in enumerate(_by_layer(calls).items()):
            self.layers.append(_read_layer(number, path, events))
        last = max((i for i, e in enumerate(calls) if layer_index(self, e.path) >= 0), default=len(calls))
        #: Norms between the last layer and the head.
        after = [e.path for e in calls[last + 1 :] if _is_norm(e)]
        self.final_norms = tuple(path for path in after if path.split(".")[0] not in self.heads)

    @property
    def embedding(self) -> EmbeddingSite:
        """The input embedding."""
        module = self.base.get_input_embeddings()
        if not isinstance(module, nn.Embedding):
            raise GraftuneError(
                "this base has no table of token embeddings",
                received=type(module).__name__,
                expected="an input embedding (torch.nn.Embedding)",
                do="use a method without virtual tokens, such as LoRA or prefix-tuning",
            )
        return EmbeddingSite(self.paths[id(module)], module.num_embeddings, module.embedding_dim)

    @property
    def width(self) -> int:
        """The width d of the hidden states."""
        return self.sublayers("attention")[0].width

    @property
    def heads(self) -> tuple[str, ...]:
        """Paths of the modules outside the trunk (classifier, score, lm_head …)."""
        trunk = self.base.base_model
        if trunk is self.base:
            return ()
        return tuple(name for name, child in self.base.named_children() if child is not trunk)

    @property
    def attentions(self) -> list[AttentionSite]:
        """Every attention that takes key/value rows, in the order it runs."""
        sites = [site for layer in self.layers for site in layer.attentions]
        if not sites:
            raise GraftuneError(
                "no attention of this base can take key/value rows",
                received=type(self.base).__name__,
                expected="attention that goes through Transformers' attention interface",
                do="choose a method that changes linear maps or the input, such as LoRA",
            )
        return sites

    def sublayers(self, role: str) -> list[SubLayerSite]:
        """The outputs of all "attention" or all "mlp" sub-layers."""
        sites = [site for layer in self.layers for site in layer.sublayers if site.role == role]
        if not sites:
            raise GraftuneError(
                f"this base has no {role} sub-layer that an adapter fits",
                received=type(self.base).__name__,
                expected=f"layers with a {role} sub-layer",
                do="look at `graftune inspect --base …` for what is there",
            )
        return sites

    def linears(self, targets: str | tuple[str, ...]) -> list[LinearSite]:
        """Linear maps by role ("q", "down"), module name (its last parts), or "all" inside the layers.

        Raises GraftuneError for a target that matches nothing.
        """
        inside = [site for layer in self.layers for site in layer.linears]
        if targets == "all":
            if not inside:
                raise GraftuneError("this base has no linear map inside its layers", received=type(self.base).__name__)
            return _whole(inside)
        wanted = (targets,) if isinstance(targets, str) else tuple(targets)
        chosen: dict[str, LinearSite] = {}
        for target in wanted:
            found = [site for site in inside if site.role == target] or self._named(target)
            if not found:
                names = {path.rsplit(".", 1)[-1] for path, m in self.modules.items() if is_linear(m)}
                raise unknown("target", target, {site.role for site in inside if site.role} | names | {"all"})
            chosen.update({site.key: site for site in found})
        return list(chosen.values())

    def _named(self, name: str) -> list[LinearSite]:
        return [
            LinearSite(path, *_widths(module), layer=layer_index(self, path))
            for path, module in self.modules.items()
            if is_linear(module) and (path == name or path.endswith("." + name))
        ]


def layer_index(anatomy: Anatomy, path: str) -> int:
    """The layer a module lies in, or -1."""
    for layer in anatomy.layers:
        if path == layer.path or path.startswith(layer.path + "."):
            return layer.index
    return -1


def dummy_inputs(base: PreTrainedModel) -> dict[str, Tensor]:
    """Smallest inputs that make every layer run."""
    config = base.config
    device = base.device
    if base.main_input_name == "pixel_values":
        size = getattr(config, "image_size", 32)
        height, width = (size, size) if isinstance(size, int) else size
        return {
            "pixel_values": torch.zeros(
                1, getattr(config, "num_channels", 3), height, width, device=device, dtype=base.dtype
            )
        }
    # Any valid id does; 1 row, because several need a padding token in some classifiers.
    ids = torch.tensor([[3, 4, 5]], device=device) % base.get_input_embeddings().num_embeddings
    inputs = {"input_ids": ids}
    if device.type != "meta":  # where a mask has no values that Transformers could look at
        inputs["attention_mask"] = torch.ones_like(ids)
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    return inputs


def _dry_run(base: PreTrainedModel, anatomy: Anatomy) -> list[_Event]:
    """Run the base once and record leaf calls and attention calls in order."""
    events: list[_Event] = []
    handles = []

    def record(path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            given = args[0] if args and isinstance(args[0], Tensor) else None
            events.append(_Event(path, module, given, output if isinstance(output, Tensor) else None))

        return hook

    def probe(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        path = anatomy.paths[id(module)]
        kind = "cross" if re.search("cross|encoder_attn|EncDec", path) else "self"
        causal = bool(getattr(module, "is_causal", False))
        site = AttentionSite(path, key.shape[1], key.shape[-1], value.shape[-1], -1, kind, causal)
        events.append(_Event(path, None, query, None, site))

    for path, module in anatomy.modules.items():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(record(path)))
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), attention.probing(base, probe):
            base(**dummy_inputs(base))
    finally:
        base.train(training)
        for handle in handles:
            handle.remove()
    return events


def _by_layer(events: list[_Event]) -> dict[str, list[_Event]]:
    """Events grouped by the layer they ran in: the path up to the first number."""
    layers: dict[str, list[_Event]] = {}
    for event in events:
        match = re.match(r"(.*?\.\d+)(\.|$)", event.path)
        if match:
            layers.setdefault(match.group(1), []).append(event)
    return {path: found for path, found in layers.items() if any(e.attention for e in found)}


def _is_norm(event: _Event) -> bool:
    return event.module is not None and "norm" in type(event.module).__name__.lower()


def _read_layer(index: int, path: str, events: list[_Event]) -> Layer:
    layer = Layer(index, path)
    linears = [i for i, e in enumerate(events) if is_linear(e.module)]
    attentions = [i for i, e in enumerate(events) if e.attention is not None]
    first = next((i for i in linears), len(events))
    pre_norm = any(_is_norm(e) for e in events[:first])

    def sublayer(role: str, start: int, stop: int) -> None:
        """The sub-layer whose first linear is event ``start`` and whose last is event ``stop``."""
        out = stop
        after = events[stop + 1] if stop + 1 < len(events) else None
        if after is not None and isinstance(after.module, nn.Dropout) and after.input is events[stop].output:
            out = stop + 1
        before = next((e for e in events[:start] if _is_norm(e) and e.output is events[start].input), None)
        norm_after = events[out + 1] if out + 1 < len(events) and _is_norm(events[out + 1]) else None
        layer.sublayers.append(
            SubLayerSite(
                events[out].path,
                role,
                _widths(events[stop].module)[1],  # type: ignore[arg-type]
                index,
                first=events[start].path,
                norm_before=before.path if pre_norm and before else None,
                norm_after=norm_after.path if not pre_norm and norm_after else None,
            )
        )

    position = 0
    for at in attentions:
        site = events[at].attention
        query = events[at].input
        assert site is not None and query is not None
        layer.attentions.append(replace(site, layer=index))
        before = [i for i in linears if position <= i < at]
        layer.linears += _projections(index, [events[i] for i in before], site, query)
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


def _linear(event: _Event, role: str, layer: int) -> LinearSite:
    assert event.module is not None
    inputs, outputs = _widths(event.module)
    return LinearSite(event.path, inputs, outputs, role, layer)


def _projections(layer: int, events: list[_Event], site: AttentionSite, query: Tensor) -> list[LinearSite]:
    """q, k and v: three maps in this order, or the columns of fused ones."""
    widths = [query.shape[1] * query.shape[-1], site.heads * site.key_width, site.heads * site.value_width]
    outputs = [_widths(e.module)[1] for e in events if e.module is not None]
    if outputs == widths:
        return [_linear(e, role, layer) for e, role in zip(events, "qkv", strict=True)]
    sites: list[LinearSite] = []
    roles = list(zip("qkv", widths, strict=True))
    for event in events:
        assert event.module is not None
        inputs, width = _widths(event.module)
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


def _whole(sites: list[LinearSite]) -> list[LinearSite]:
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
