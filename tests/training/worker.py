"""One of several processes, started by torchrun: computes what test_distributed.py compares, and writes it down."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from graftune.config import recipe as recipes
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, Method
from graftune.model.adapted import AdaptedModel
from graftune.tasks.features import Features
from graftune.training import distributed
from graftune.training.budget import budget_of
from graftune.training.prepare import prepare, task_of
from graftune.training.step import Step
from graftune.training.tables import read_tables
from graftune.training.trained import encode, encoder_of
from training.tiny import Toys, small

TRAINED = sorted(name for name, (cls, _) in PRESETS.items() if cls.trainable and name != "head")
#: Base, task, rows of the step, tokens of a micro-batch: 5 rows in pieces of 1 are 3 for one process, 2 for the other.
CASES: dict[str, tuple[str, str, int, int | None]] = {
    "whole": ("llama", "generate", 5, None),
    "ragged": ("bert", "classify", 5, 1),
    "one row": ("gpt2", "generate", 1, None),
}
#: freeze keeps what its frozen layers give, where the base is whole.
SHARDED = ("lora", "prefix", "houlsby", "prompt", "full", "freeze")
SHORT = {"max_steps": 6, "batch_size": 5, "checkpoint_every": 2, "lr": 1e-2, "eval_every": 3}


class Laboratory:
    """One base in float64, on which the gradient of a first step is taken for any method."""

    def __init__(self, toys: Toys, case: str) -> None:
        base, task, self.rows, micro_tokens = CASES[case]
        options = {**toys.options(task), "micro_tokens": micro_tokens, "max_steps": 1}
        self.recipe = recipes.given(getattr(toys, base), None, options)
        self.prepared = prepare(self.recipe, task_of(self.recipe, small("lora")), read_tables(self.recipe))
        self.prepared.base.double()

    def model(self, method: Method) -> AdaptedModel:
        """The base with an adapter of values at which no gradient is zero."""
        prepared = self.prepared
        model = AdaptedModel(prepared.base, prepared.task.processor)
        heads = prepared.task.task.head(model.config).modules(prepared.base)
        adapter = model.add("a", method, heads=heads, seed=0).double()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        return model

    def features(self, method: Method, model: AdaptedModel) -> Sequence[Features]:
        """The training rows as the method reads them."""
        return encode(self.prepared, encoder_of(self.prepared, self.recipe, method, model), self.recipe)[0].features

    def gradients(self, method: Method, shard: bool) -> dict[str, Tensor]:
        """The gradient of the first step, by parameter name, and its loss."""
        model = self.model(method)
        rows = self.features(method, model)
        with distributed.sharded(model, shard):
            step = Step(model, "a", self.prepared.task, budget_of(self.recipe, method, 5, model))
            loss, _ = step.backward(rows[: self.rows])
        found = {n: p.grad for n, p in step.adapter.named_parameters() if p.grad is not None}
        model.close()
        return {**found, "loss": torch.tensor(loss)}


def laws(toys: Toys, shard: bool = False) -> dict[str, Tensor]:
    """The gradients of every method in every case, as ``case|method|parameter``."""
    found = {}
    for case in CASES:
        laboratory = Laboratory(toys, case)
        for method in TRAINED:
            for name, value in laboratory.gradients(small(method), shard).items():
                found[f"{case}|{method}|{name}"] = value.contiguous()
    return found


def sharding(toys: Toys) -> dict[str, Any]:
    """What becomes of a base in a sharded block."""
    laboratory = Laboratory(toys, "whole")
    model = laboratory.model(small("lora"))
    rows = laboratory.features(small("lora"), model)
    batch = laboratory.prepared.task.collate(rows[:2])
    layer = model.anatomy.modules[model.anatomy.layers[0].path]
    before = {name: (p, p.detach().clone()) for name, p in model.base.named_parameters()}
    classes, keys = [type(m) for m in model.base.modules()], list(model.base.state_dict())
    whole = sum(p.numel() for p in layer.parameters())
    with distributed.sharded(model, True):
        model(adapters="a", **laboratory.prepared.task.model_inputs(batch))
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in layer.parameters())
        freed = sum(p.numel() for name, (p, _) in before.items() if "layers" in name)
        same_classes = classes == [type(m) for m in model.base.modules()]
    return {
        "held": held / whole,
        "freed": freed,
        "same classes": same_classes,
        "restored": all(p is before[n][0] and torch.equal(p, before[n][1]) for n, p in model.base.named_parameters()),
        "same keys": keys == list(model.base.state_dict()),
        "plain": not any("forward" in m.__dict__ for m in model.base.modules()),
    }


def sums() -> dict[str, Any]:
    """Gradients that some processes lack, and those that all lack."""
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), 1.0 + distributed.rank())
    if distributed.rank() == 1:
        parameters[1].grad = torch.full((2,), 5.0)
    loss = torch.tensor(0.5)
    distributed.sum_gradients(parameters, loss)
    return {
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
        "loss": loss.item(),
        "anywhere": distributed.anywhere(distributed.rank() == 1, loss.device),
        "nowhere": distributed.anywhere(False, loss.device),
        "told": distributed.told(f"by {distributed.rank()}"),
    }


def runs(toys: Toys, folder: Path) -> dict[str, Any]:
    """Whole runs: every kind of method with a whole base and a sharded one, and one that is interrupted."""
    metrics = {}
    for method in SHARDED:
        for shard in (False, True):
            run = toys.train(folder / f"{method}-{shard}", method, shard=shard, **SHORT)
            metrics[f"{method}-{shard}"] = run.metrics
    kernels = {"shard": True, "gradient_checkpointing": True, "products": "onednn"}
    toys.train(folder / "lora-checkpointing", "lora", **kernels, **SHORT)
    dropping = small("lora", dropout=0.3)
    toys.train(folder / "never stopped", dropping, **SHORT)
    interrupted(toys, folder / "stopped", dropping)
    toys.train(folder / "stopped", dropping, resume=True, **SHORT)
    return metrics


def interrupted(toys: Toys, folder: Path, method: Method) -> None:
    """A run in which Ctrl-C reaches the second process only, in its third step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored here (nohup)
    real, count = torch.nn.utils.clip_grad_norm_, 0

    def pressed(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3 and distributed.rank() == 1:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    try:
        with patch.object(torch.nn.utils, "clip_grad_norm_", pressed):
            toys.train(folder, method, **SHORT)
    except KeyboardInterrupt:
        return
    raise AssertionError("the interrupt was lost")


def disagreement(toys: Toys, folder: Path) -> str:
    """What is said where the processes are given different options."""
    try:
        toys.train(folder / "different", "lora", seed=distributed.rank(), **SHORT)
    except GraftuneError as error:
        return str(error)
    return "nothing"


def main() -> None:
    folder = Path(sys.argv[1])
    toys = Toys.__new__(Toys)
    vars(toys).update(json.loads((folder / "toys.json").read_text()))
    torch.set_num_threads(1)
    distributed.join()
    for shard in (False, True):
        save_file(laws(toys, shard), folder / f"laws-{shard}-{distributed.rank()}.safetensors")
    seen = {
        "sharding": sharding(toys),
        "sums": sums(),
        "runs": runs(toys, folder / "runs"),
        "disagreement": disagreement(toys, folder),
    }
    (folder / f"seen-{distributed.rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
