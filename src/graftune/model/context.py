"""Context: what a method may ask about the base while it builds its parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model import attention
from graftune.model.anatomy import Anatomy, reader_of
from graftune.model.columns import layer_sites
from graftune.model.layers import refuse_quantized, weight_of
from graftune.parts import LayerSite, LinearSite, ModuleSite, ParameterCopy, Site, SubLayerSite

Placed = TypeVar("Placed", LinearSite, SubLayerSite)


class Context:
    """A base, its anatomy, and where known its tokenizer and the task's class labels."""

    def __init__(
        self,
        base: PreTrainedModel,
        anatomy: Anatomy,
        tokenizer: Callable[..., Any] | None = None,
        labels: tuple[str, ...] = (),
    ) -> None:
        self.base, self.anatomy, self.tokenizer, self.labels = base, anatomy, tokenizer, labels

    @property
    def width(self) -> int:
        """The width d of the hidden states."""
        return self.anatomy.width

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.base.config.is_encoder_decoder)

    @property
    def reader(self) -> nn.Module | None:
        """What reads the input, a table of tokens or a map of patches; None where the base names no such module."""
        return reader_of(self.base)

    @property
    def has_tokens(self) -> bool:
        """Whether the base reads tokens from a table."""
        return isinstance(self.reader, nn.Embedding)

    @property
    def patch(self) -> int:
        """Numbers in one patch of an image, channels · height · width, as the base's map of patches takes them.

        Raises GraftuneError for a base that does not name this map.
        """
        for module in () if self.reader is None else self.reader.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() > 1:
                return weight[0].numel()
        raise GraftuneError(
            "the size of this base's patches is not known",
            received=type(self.base).__name__,
            expected="input embeddings with a convolution or a linear map",
            do='use init="random"',
        )

    def layer_inputs(self) -> list[LayerSite]:
        """The inputs of all layers. Raises GraftuneError where no column can join them."""
        return layer_sites(self.anatomy)

    @property
    def embeddings(self) -> Tensor:
        """The table of token embeddings (V, d), fp32 on the CPU."""
        module = self.anatomy.modules[self.anatomy.embedding.path]
        weight: Tensor = module.weight  # type: ignore[assignment]
        return weight.detach().float().cpu()

    @property
    def special_ids(self) -> set[int]:
        """Ids of special tokens, which make poor starting points."""
        return set(getattr(self.tokenizer, "all_special_ids", ()))

    def tokens(self, text: str) -> list[int]:
        """Ids of ``text`` without special tokens. Raises GraftuneError without a tokenizer or any token."""
        if self.tokenizer is None:
            raise GraftuneError(
                "starting from words needs the base's tokenizer",
                received=f"text {text!r} and no tokenizer",
                expected="AdaptedModel(base, tokenizer=…)",
                do="pass the tokenizer when the base is wrapped",
            )
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise GraftuneError("the text to start from has no tokens", received=repr(text), do="give some words")
        return ids

    def weight(self, site: LinearSite) -> Tensor:
        """The weight at a site as (d_out, d_in). Raises GraftuneError for a quantized one."""
        weight = weight_of(self.anatomy.modules[site.path])
        refuse_quantized("this method", site.path, weight)
        return weight if site.start is None else weight[site.columns]

    def key_values(self, text: str) -> dict[str, Tensor]:
        """Keys and values of ``text`` in every attention of the frozen base: (n, heads·(d_k + d_v)) each."""
        ids = torch.tensor([self.tokens(text)], device=self.base.device)
        found: dict[str, Tensor] = {}

        def probe(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
            # (1, heads, n, width) -> (n, heads * width)
            flat = [t[0].transpose(0, 1).reshape(t.shape[2], -1) for t in (key, value)]
            found[self.anatomy.paths[id(module)]] = torch.cat(flat, dim=-1).float().clone()

        inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if self.is_encoder_decoder else {})}
        training = self.base.training
        self.base.eval()
        with torch.no_grad(), attention.probing(self.base, probe):
            self.base(**inputs)
        self.base.train(training)
        return found

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the base's parameters; tied ones once, and none that it computes and does not store (sines)."""
        computed = self.base._keys_to_ignore_on_save or ()
        return [name for name, _ in self.base.named_parameters() if name not in computed]

    def in_head(self, name: str) -> bool:
        """Whether a parameter belongs to a head rather than to the trunk."""
        return name.split(".")[0] in self.anatomy.heads

    def upper(self, sites: Iterable[Placed], last: int | None) -> list[Placed]:
        """The sites in the ``last`` layers; all of them for None. Raises GraftuneError for too many layers."""
        layers = len(self.anatomy.layers)
        if last is not None and last > layers:
            raise GraftuneError(
                "there are not that many layers to train",
                received=f"last={last}",
                expected=f"1 to {layers} layers",
                do="lower it, or leave it out for all layers",
            )
        return [site for site in sites if last is None or site.layer >= layers - last]

    def norm_parameters(self, last: int | None = None) -> list[str]:
        """Names of the parameters of every normalisation layer, or of those in and behind the ``last`` layers."""
        norms = {p for p, m in self.anatomy.modules.items() if re.search("norm", type(m).__name__, re.IGNORECASE)}
        if last is not None:
            lowest = len(self.anatomy.layers) - last
            norms = {path for path in norms if self.anatomy.depth(path) >= lowest}
        return [name for name in self.parameters if name.rpartition(".")[0] in norms]

    def copies(self, names: Iterable[str]) -> list[tuple[Site, nn.Module]]:
        """Trained copies of parameters, one part per owning module; tied parameters share one copy.

        Raises GraftuneError for a quantized one, which cannot be trained.
        """
        chosen = {id(self.base.get_parameter(name)) for name in names}
        made: dict[int, nn.Parameter] = {}
        grafts: list[tuple[Site, nn.Module]] = []
        for path, module in self.anatomy.modules.items():
            fresh: dict[str, Tensor] = {}
            alias: dict[str, nn.Parameter] = {}
            for name, parameter in module._parameters.items():
                if parameter is None or id(parameter) not in chosen:
                    continue
                refuse_quantized("this method", f"{path}.{name}", parameter)
                if id(parameter) in made:
                    alias[name] = made[id(parameter)]
                else:
                    fresh[name] = parameter
            if fresh or alias:
                part = ParameterCopy(fresh, alias)
                made.update({id(parameter): part.copies[name] for name, parameter in fresh.items()})
                grafts.append((ModuleSite(path), part))
        return grafts


def copied_names(grafts: Iterable[tuple[Site, nn.Module]]) -> set[str]:
    """Names of the base's parameters that grafts already hold copies of."""
    return {f"{site.path}.{name}" for site, part in grafts if isinstance(part, ParameterCopy) for name in part()}
