"""The methods that the laws are checked on: every preset, and the variants that take another path."""

from __future__ import annotations

import torch

from graftune.methods.method import PRESETS, Method, make
from graftune.model.adapted import AdaptedModel

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "prompt-random": ("prompt", {"length": 4, "init": "random"}),
    "prefix-direct": ("prefix", {"length": 3, "reparameterize": False}),
    "prefix-shifted": ("prefix", {"length": 3, "reparameterize": False, "shift_positions": True}),
    "p-tuning-mlp": ("p-tuning", {"pattern": "{P:2}{P:3}{input}", "encoder": "mlp"}),
    "p-tuning-v2-mlp": ("p-tuning-v2", {"length": 4, "reparameterize": True, "hidden": 16}),
    "lora-all": ("lora", {"rank": 4, "targets": "all", "rslora": True}),
    "lora-qkvo": ("lora", {"rank": 2, "targets": ("q", "k", "v", "o")}),
    "freeze-first": ("freeze", {"first": 1, "last": 0}),
    "freeze-names": ("freeze", {"names": (r"(?i)norm|ln_",), "last": 0}),
}
SMALL: dict[str, dict[str, object]] = {
    "prompt": {"length": 5},
    "prefix": {"length": 5, "hidden": 16},
    "p-tuning": {"pattern": "{P:3}{input}"},
    "p-tuning-v2": {"length": 7},
    "houlsby": {"bottleneck": 6},
    "pfeiffer": {"bottleneck": 6},
    "parallel": {"bottleneck": 6},
    "lora": {"rank": 3, "alpha": 5},
    "dora": {"rank": 3, "targets": ("q", "v", "down")},
    "freeze": {"last": 1},
}


def all_methods() -> dict[str, Method]:
    """Every trainable preset with small sizes, and the variants; the linear probe has no part to look at."""
    methods = {name: make(name, **SMALL.get(name, {})) for name in sorted(PRESETS)}
    methods |= {name: make(preset, **options) for name, (preset, options) in VARIANTS.items()}
    return {name: method for name, method in methods.items() if method.trainable and name != "head"}


METHODS = all_methods()
NO_OP = (
    "lora",
    "lora-all",
    "lora-qkvo",
    "dora",
    "ia3",
    "bitfit",
    "parallel",
    "freeze",
    "freeze-first",
    "freeze-names",
    "full",
)
MERGEABLE = ("lora", "lora-all", "lora-qkvo", "dora", "ia3", "freeze", "freeze-first", "freeze-names", "full")


def disturb(model: AdaptedModel, name: str, seed: int = 7, size: float = 0.1) -> None:
    """Move every parameter of an adapter away from its start, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters_of(name):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
