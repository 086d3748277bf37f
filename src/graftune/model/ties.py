"""Ties: parameters that several modules of a model hold, and a model whose config says which are its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from graftune.errors import GraftuneError
from graftune.model.trace import dummy_inputs

TIED = "tie_word_embeddings"


def ties(model: nn.Module) -> set[frozenset[str]]:
    """The names of each parameter that has several."""
    names: defaultdict[nn.Parameter, set[str]] = defaultdict(set)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter].add(name)
    return {frozenset(found) for found in names.values() if len(found) > 1}


def shared_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The parameters that several modules hold."""
    held = Counter(p for module in model.modules() for p in module._parameters.values() if p is not None)
    return {parameter for parameter, modules in held.items() if modules > 1}


def own(module: nn.Module, name: str) -> None:
    """Give a module a parameter of its own, equal to the one that it shares."""
    parameter = module._parameters[name]
    assert parameter is not None
    module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)


def untie(model: PreTrainedModel) -> None:
    """Let the config of a model of which some tied weights now differ say that they are no longer tied.

    Weights that the config ties together with them become weights of their own, so that the model is the same when
    it is saved and loaded. Raises GraftuneError where the config cannot say it, or means something else by it.
    """
    before = _run(model)
    for config in _tying(model):
        setattr(config, TIED, False)
    reread = type(model.config).from_dict(model.config.to_dict())
    with torch.device("meta"):
        fresh = type(model)(reread)
    if _says(reread) != _says(model.config):
        raise _fixed(model, "a config that ties them again when it is read")
    if not all(torch.equal(old, new) for old, new in zip(before, _run(model), strict=True)):
        raise _fixed(model, f"a forward that computes something else without {TIED}")
    still = ties(fresh)
    values = dict(model.named_parameters(remove_duplicate=False))
    for names in still:
        first, *others = (values[name] for name in sorted(names))
        if not all(other is first or torch.equal(other, first) for other in others):
            raise _fixed(model, f"a class that always ties {' and '.join(sorted(names))}")
    tied = {name for names in still for name in names}
    shared = shared_parameters(model)
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter in shared and f"{path}.{name}".lstrip(".") not in tied:
                own(module, name)
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _tying(model: PreTrainedModel) -> list[PretrainedConfig]:
    """The configs that tie weights which are not one parameter now, and their text configs."""
    found: list[PretrainedConfig] = []
    for module in model.modules():
        if not isinstance(module, PreTrainedModel):
            continue
        parameters = dict(module.named_parameters(remove_duplicate=False))
        pairs = module.get_expanded_tied_weights_keys(all_submodels=False).items()
        if any(parameters[target] is not parameters[source] for target, source in pairs if target in parameters):
            found += [module.config, module.config.get_text_config()]
    return [config for config in found if hasattr(config, TIED)]


def _says(config: PretrainedConfig) -> dict[str, Any]:
    """A config but for what only tells where it comes from."""
    return {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}


def _run(model: PreTrainedModel) -> list[Tensor]:
    """What the model gives for the smallest of inputs."""
    output = model(**dummy_inputs(model))
    assert isinstance(output, ModelOutput)
    return [value for value in output.values() if isinstance(value, Tensor)]


def _fixed(model: PreTrainedModel, received: str) -> GraftuneError:
    return GraftuneError(
        "this adapter cannot be merged: it changes a weight that the base ties to another one, for good",
        received=f"{type(model).__name__}, {received}",
        expected=f"a base that computes the same with {TIED}=False in its config",
        do="keep the adapter beside the base, or leave the tied weight out of its targets",
    )
