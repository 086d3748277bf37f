"""Anatomy: the map of a base's sites, read off one dry run rather than off names."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from graftune.errors import GraftuneError, unknown
from graftune.methods.rates import Kind
from graftune.model.layers import Layer, is_linear, read_layer, sizes_of, whole
from graftune.model.trace import Event, by_layer, dry_run, is_norm
from graftune.parts.sites import AttentionSite, EmbeddingSite, LinearSite, SubLayerSite


def reader_of(base: PreTrainedModel) -> nn.Module | None:
    """What reads the input, a table of tokens or a map of patches; None where the base names no such module (DETR)."""
    try:
        found: nn.Module = base.get_input_embeddings()
    except NotImplementedError:
        return None
    return found


#: What a linear map of a layer can be.
ROLES = ("q", "k", "v", "o", "gate", "up", "down")


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
        run = dry_run(base, self.modules)
        for number, (path, events) in enumerate(by_layer(run).items()):
            self.layers.append(read_layer(number, path, events))
        self._ran = {e.path for e in run}
        self._plain = {e.path for e in run if e.output is not None}  # that give one tensor
        calls = [e for e in run if not e.is_block]
        last = max((i for i, e in enumerate(calls) if layer_index(self, e.path) >= 0), default=len(calls))
        self._behind = {e.path for e in calls[last + 1 :]}
        tables = {e.path: e for e in reversed(calls) if isinstance(e.module, nn.Embedding)}
        self._tables = list(reversed(tables))  # paths, in the order in which they are first read
        self.rowless = self._rowless(calls)
        #: Norms between the last layer and the head.
        after = [e.path for e in calls[last + 1 :] if is_norm(e)]
        self.final_norms = tuple(path for path in after if path.split(".")[0] not in self.heads)

    def _rowless(self, calls: list[Event]) -> set[str]:
        """Modules that do not give one entry for one row, so that all rows share what they give.

        Biases by distance (T5) and their norms; maps that run on states and on distances alike (DeBERTa).
        """
        found: set[str] = set()
        shapes: dict[str, torch.Size] = {}
        for e in calls:
            if e.output is None:
                continue
            outside = isinstance(e.module, nn.Embedding) or layer_index(self, e.path) < 0
            if (outside and len(e.output) != 1) or shapes.setdefault(e.path, e.output.shape) != e.output.shape:
                found.add(e.path)
        return found

    @property
    def embedding(self) -> EmbeddingSite:
        """The table that reads the input: an encoder may have one of its own, tied to the base's (T5)."""
        module = reader_of(self.base) or self.base
        shared = getattr(module, "weight", None)
        module = next((m for path in self._tables if (m := self.modules[path]).weight is shared), module)
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
        """The width d of the hidden states: of what an attention gives, or where none is found as the config has it."""
        sites = [site for layer in self.layers for site in layer.sublayers if site.role == "attention"]
        if sites:
            return sites[0].width
        width: int = self.base.config.get_text_config().hidden_size  # every config of Transformers maps this name
        return width

    @property
    def kind(self) -> Kind:
        """What kind of base it is, as far as learning rates differ."""
        config = self.base.config
        if self.base.main_input_name == "pixel_values":
            return "vision"
        if config.is_encoder_decoder:
            return "encoder-decoder"
        causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        return "decoder" if causal and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"

    @property
    def has_deep_head(self) -> bool:
        """Whether the head is of several linear maps."""
        heads = [self.modules[path] for path in self.heads]
        return sum(isinstance(one, nn.Linear) for head in heads for one in head.modules()) > 1

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
                expected=f"layers with their {role} as a sub-layer",
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
            return whole(inside)
        wanted = (targets,) if isinstance(targets, str) else tuple(targets)
        chosen: dict[str, LinearSite] = {}
        for target in wanted:
            found = [site for site in inside if site.role == target] or self._named(target)
            if not found:
                names = {path.rsplit(".", 1)[-1] for path, m in self.modules.items() if is_linear(m)}
                known = {site.role for site in inside if site.role} | names | {"all"}
                if target in ROLES:
                    raise GraftuneError(
                        f"no linear map of this base is {target!r}",
                        received=type(self.base).__name__,
                        expected="among " + ", ".join(sorted(known)),
                        do="choose targets that are there, or a method that needs none",
                    )
                raise unknown("target", target, known)
            chosen.update({site.key: site for site in found})
        for site in chosen.values():
            if site.path not in self._plain:
                raise GraftuneError(
                    f"a part at {site.path} would change nothing, or what it cannot",
                    received="a map that gives several tensors"
                    if site.path in self._ran
                    else "a map that is not called",
                    expected="linear maps that the base calls and that give one tensor",
                    do="name the others: `graftune inspect --base …` shows them",
                )
        return list(chosen.values())

    def _named(self, name: str) -> list[LinearSite]:
        return [
            LinearSite(path, *sizes_of(module), layer=layer_index(self, path))
            for path, module in self.modules.items()
            if is_linear(module) and (path == name or path.endswith("." + name))
        ]

    def reader(self, path: str) -> nn.Module:
        """The module at whose calls the parameters at ``path`` are read.

        That is the module itself, or where others read them without calling it (DETR's queries), the nearest one
        above that is called. Tied parameters (BART's shared table) are read where a module that has them is called.
        """
        own = {id(p) for p in self.modules[path]._parameters.values()}
        tied = any(own & {id(p) for p in self.modules[other]._parameters.values()} for other in self._ran)
        while path and path not in self._ran and not tied:
            path = path.rpartition(".")[0]
        return self.modules[path]

    def depth(self, path: str) -> int:
        """The lowest layer that a change of this module can reach: 0 for the embeddings, n behind the n layers."""
        inside = layer_index(self, path)
        if inside >= 0:
            return inside
        return len(self.layers) if path in self._behind else 0


def layer_index(anatomy: Anatomy, path: str) -> int:
    """The layer a module lies in, or -1."""
    for layer in anatomy.layers:
        if path == layer.path or path.startswith(layer.path + "."):
            return layer.index
    return -1
