"""The optimizer: AdamW, with a group for each learning rate and weight decay."""

from __future__ import annotations

import re

import torch
from torch import nn

from graftune.errors import GraftuneError
from graftune.training.budget import Budget


def check_rates(adapter: nn.Module, budget: Budget) -> None:
    """Raise GraftuneError for a pattern in ``budget.rates`` that is found in no parameter's name, or is none."""
    names = [name for name, _ in adapter.named_parameters()]
    for pattern in budget.rates:
        try:
            found = any(re.search(pattern, name) for name in names)
        except re.error:
            found = False
        if not found:
            raise GraftuneError(
                "a learning rate is given for a part that is not there",
                received=repr(pattern),
                expected=f"a regular expression found in a parameter's name, such as {names[0]}",
                do="correct the pattern in rates",
            )


def optimizer_of(adapter: nn.Module, budget: Budget) -> torch.optim.Optimizer:
    """Fused AdamW over an adapter's parameters; each group's ``factor`` multiplies the rate of the schedule.

    Vectors and biases are not decayed, as everywhere in the field. Of several patterns in ``budget.rates`` that
    are found in a parameter's name the last one counts.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in adapter.named_parameters():
        factor = 1.0
        for pattern, value in budget.rates.items():
            if re.search(pattern, name):
                factor = value
        decay = budget.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in groups.items()],
        lr=budget.lr,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to its factor times ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
