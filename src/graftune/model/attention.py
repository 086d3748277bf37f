"""Key/value rows and columns of a prompt through Transformers' attention interface.

Every pluggable attention calls one function with (module, query, key, value, mask, …) after position
embedding and after the cache. While a base has key/value rows attached, that function is ours: it puts the
rows in front of the keys and values, widens the mask, and calls the implementation the base had before. So it is
while a prompt stands among the hidden states, whose mask it then widens first.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from graftune.errors import GraftuneError

PREFIX = "graftune_"
SUPPORTED: list[str] = []

#: What surrounds an attention call: (module, query, key, value, mask) -> (key, value, mask)
Extend = Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]

#: What fits the mask to a sequence that was widened before it came here: (query, mask) -> mask
Widen = Callable[[Tensor, Tensor | None], Tensor | None]

_extensions: weakref.WeakKeyDictionary[nn.Module, Extend] = weakref.WeakKeyDictionary()
_widenings: weakref.WeakKeyDictionary[nn.Module, Widen] = weakref.WeakKeyDictionary()
_users: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
_probes: list[Callable[[nn.Module, Tensor, Tensor, Tensor], None]] = []


def _forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    for probe in _probes:
        probe(module, query, key, value)
    widen, extend = _widenings.get(module), _extensions.get(module)
    if attention_mask is None and kwargs.get("is_causal") and query.shape[2] > 1 and (widen or extend):
        # Said at the call and not on the module (CLIP): spelled out, before there are more keys than queries.
        own = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        attention_mask = as_mask(own[None, None], query.dtype)
    if widen is not None:  # before the rows: they stand in front of the whole sequence
        attention_mask = widen(query, attention_mask)
    if extend is not None:
        before = key.shape[2]
        key, value, attention_mask = extend(module, query, key, value, attention_mask)
        bias = kwargs.get("position_bias")
        if bias is not None and key.shape[2] > before:  # T5: rows have no distance, so no bias
            kwargs["position_bias"] = nn.functional.pad(bias, (key.shape[2] - before, 0))
    return _original(module)(module, query, key, value, attention_mask, **kwargs)


def _original(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function that ``module`` would call without us."""
    config: Any = module.config
    # Eager attention is not in the interface: each modeling file has its own.
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    original: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        config._attn_implementation.removeprefix(PREFIX), eager
    )
    return original


def support(name: str) -> None:
    """Let a base whose attention implementation has this name take key/value rows."""
    AttentionInterface.register(PREFIX + name, _forward)
    AttentionMaskInterface.register(PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])
    SUPPORTED.append(name)


for _name in ("sdpa", "eager"):
    support(_name)


def _configs(base: nn.Module) -> list[PretrainedConfig]:
    """The distinct configs that the base's modules consult."""
    found: dict[int, PretrainedConfig] = {}
    for module in base.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            found[id(config)] = config
    return list(found.values())


def intercept(base: nn.Module) -> None:
    """Route the base's attention through this module until each user has released it.

    Raises GraftuneError where that is impossible.
    """
    configs = _configs(base)
    for name in (config._attn_implementation for config in configs):
        if name is not None and name.removeprefix(PREFIX) not in SUPPORTED:
            raise GraftuneError(
                "this attention implementation cannot take key/value rows",
                received=f"attn_implementation={name!r}",
                expected=" or ".join(map(repr, SUPPORTED)),
                do='load the base with attn_implementation="sdpa"',
            )
    for config in configs:
        if config._attn_implementation in SUPPORTED:
            config._attn_implementation_internal = PREFIX + config._attn_implementation
    _users[base] = _users.get(base, 0) + 1


def release(base: nn.Module) -> None:
    """Give the base its own attention back, unless others still use ours."""
    left = _users.pop(base, 1) - 1
    if left:
        _users[base] = left
        return
    for config in _configs(base):
        if (config._attn_implementation or "").startswith(PREFIX):
            config._attn_implementation_internal = config._attn_implementation.removeprefix(PREFIX)


@contextmanager
def renamed(base: nn.Module, old: str, new: str) -> Iterator[bool]:
    """Within the block the base's attention is ``new`` wherever it is ``old``; yields whether it is anywhere."""

    def exchange(before: str, after: str) -> bool:
        found = [c for c in _configs(base) if (c._attn_implementation or "").removeprefix(PREFIX) == before]
        for config in found:
            prefix = PREFIX if config._attn_implementation.startswith(PREFIX) else ""
            config._attn_implementation_internal = prefix + after
        return bool(found)

    found = exchange(old, new)
    try:
        yield found
    finally:
        exchange(new, old)


def extend(module: nn.Module, function: Extend) -> None:
    """Let ``function`` change the keys, values and mask of one attention."""
    _extensions[module] = function


def unextend(module: nn.Module) -> None:
    """Undo ``extend``."""
    _extensions.pop(module, None)


def widen(module: nn.Module, function: Widen) -> None:
    """Let ``function`` change the mask of one attention before anything else does."""
    _widenings[module] = function


def unwiden(module: nn.Module) -> None:
    """Undo ``widen``."""
    _widenings.pop(module, None)


@contextmanager
def probing(base: nn.Module, probe: Callable[[nn.Module, Tensor, Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``probe(module, query, key, value)`` at every attention of the base within the block."""
    intercept(base)
    _probes.append(probe)
    try:
        yield
    finally:
        _probes.remove(probe)
        release(base)


def prepend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    rows_key: Tensor,
    rows_value: Tensor,
    visible: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Put rows in front of keys and values and widen the mask.

    query (B, H, T, d_k), key (B, H_kv, S, d_k), value (B, H_kv, S, d_v), mask (B|1, 1|H, T, S) boolean or
    additive, or None; rows_key (B, H_kv, l, d_k), rows_value (B, H_kv, l, d_v), visible (B, l) boolean.
    Every query sees the visible rows, whatever causal or sliding window limits its sight of tokens.
    """
    batch, targets, sources = query.shape[0], query.shape[2], key.shape[2]
    length = rows_key.shape[2]
    key = torch.cat([rows_key.to(key.dtype), key], dim=2)
    value = torch.cat([rows_value.to(value.dtype), value], dim=2)
    if mask is None and bool(visible.all()) and (targets == 1 or not getattr(module, "is_causal", False)):
        return key, value, None
    if mask is None:
        own = torch.ones(targets, sources, dtype=torch.bool, device=query.device)
        if getattr(module, "is_causal", False) and targets > 1:
            # No mask means that queries and keys start together: aligned at the top left.
            own = own.tril()
        mask = as_mask(own[None, None], query.dtype)
    seen = as_mask(visible[:, None, None, :], mask.dtype).expand(batch, mask.shape[1], targets, length)
    mask = mask.expand(batch, -1, targets, sources)
    return key, value, torch.cat([seen, mask], dim=-1)


def as_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is visible, as a mask of this kind: boolean, or added to the scores (all that eager attention knows)."""
    if dtype == torch.bool:
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
