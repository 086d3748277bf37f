"""A dry run of a base: which leaf modules ran and when attention was called, in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model import attention
from graftune.parts.sites import AttentionSite

NUMBER = re.compile(r"\.\d+(?=\.|$)")


@dataclass
class Event:
    """One call seen in the dry run: of a module as it ends, or (module None) of attention: its query, key and value."""

    path: str
    module: nn.Module | None
    input: Tensor | None
    output: Tensor | None
    attention: AttentionSite | None = None
    key: Tensor | None = None

    @property
    def is_block(self) -> bool:
        """Whether this is a call of a module that is made of others."""
        return self.module is not None and any(True for _ in self.module.children())


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


def dry_run(base: PreTrainedModel, modules: Mapping[str, nn.Module]) -> list[Event]:
    """Run the base once and record the calls of modules, as they end, and of attention in order."""
    events: list[Event] = []
    paths = {id(module): path for path, module in modules.items()}

    def record(path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            given = args[0] if args and isinstance(args[0], Tensor) else None
            events.append(Event(path, module, given, output if isinstance(output, Tensor) else None))

        return hook

    def probe(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        path = paths[id(module)]
        kind = "cross" if re.search("cross|encoder_attn|EncDec", path) else "self"
        causal = bool(getattr(module, "is_causal", False))
        site = AttentionSite(path, key.shape[1], key.shape[-1], value.shape[-1], -1, kind, causal)
        events.append(Event(path, None, query, value, site, key))

    handles = [module.register_forward_hook(record(path)) for path, module in modules.items()]
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), ExitStack() as stack:
            for name in _unsupported(base):  # which adapters without rows can do with, but we could not look into
                stack.enter_context(attention.renamed(base, name, "sdpa"))
            stack.enter_context(attention.probing(base, probe))
            base(**dummy_inputs(base))
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        raise GraftuneError(
            "the sites of this base cannot be found: it does not run on ids or pixels alone",
            received=f"{type(base).__name__}: {str(error).splitlines()[0]}",
            expected="a model that reads texts or images, with or without a decoder",
            do="adapt the part of it that does, such as its text or its vision tower",
        ) from error
    finally:
        base.train(training)
        for handle in handles:
            handle.remove()
    return events


def _unsupported(base: PreTrainedModel) -> set[str]:
    """Attention implementations of the base that take no key/value rows."""
    configs = [
        module.config for module in base.modules() if isinstance(getattr(module, "config", None), PretrainedConfig)
    ]
    names = {config._attn_implementation for config in configs} - {None}
    return {n for n in names if n.removeprefix(attention.PREFIX) not in attention.SUPPORTED}


def by_layer(events: list[Event]) -> dict[str, list[Event]]:
    """Events grouped by the layer they ran in: the path up to the first number, if that holds one self-attention.

    Where it holds several, it is a stage of layers (Swin), and the next number counts. A layer that runs several
    times (ALBERT) is one layer: its first run is what is kept. A base whose attention is out of sight (DeBERTa) has
    layers by number alone.
    """
    if not any(e.attention for e in events):
        return _numbered(events, 0)
    return {path: _once(found) for path, found in _grouped(events, 0).items()}


def _once(events: list[Event]) -> list[Event]:
    """The first of the equal runs of a layer."""
    calls = [e.path for e in events if e.attention is not None]
    return events[: len(events) // calls.count(calls[0])]


def _numbered(events: list[Event], start: int) -> dict[str, list[Event]]:
    """Groups by the first number behind character ``start`` of the path."""
    groups: dict[str, list[Event]] = {}
    for event in events:
        match = NUMBER.search(event.path, start)
        if match:
            groups.setdefault(event.path[: match.end()], []).append(event)
    return groups


def _grouped(events: list[Event], start: int) -> dict[str, list[Event]]:
    """The numbered groups with attention; those with several self-attentions taken apart."""
    layers: dict[str, list[Event]] = {}
    for path, found in _numbered(events, start).items():
        attentions = {e.path for e in found if e.attention is not None and e.attention.kind == "self"}
        inside = _grouped(found, len(path)) if len(attentions) > 1 else {}
        if inside:
            layers.update(inside)
        elif any(e.attention for e in found):
            layers[path] = found
    return layers


def is_norm(event: Event) -> bool:
    """Whether an event is a call of a normalisation layer."""
    return event.module is not None and "norm" in type(event.module).__name__.lower()
