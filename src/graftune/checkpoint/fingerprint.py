"""Fingerprints: which base an adapter was made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

SAMPLE = 64  # values looked at per tensor: enough to tell two trainings of one shape apart
#: Settings that change what is computed, and those among their names that do not.
COMPUTES = re.compile(
    r"eps|heads?$|head_dim|d_kv|d_head|theta|rope|scal(e|ing|ar)|multiplier|softcap|window|_act$|act_fn|activation"
    r"|feed_forward_proj|alibi|attn_type|topk_prob|experts_per_tok|position_embedding_type|layer_types"
)
NOT = re.compile(r"init|dropout|max_window|time_step")
KEPT = 4  # values kept per tensor, to compare with in another precision

#: Half the distance between two numbers near 1: how far rounding moves a value, relative to it.
FULL, HALF, BRAIN = 2.0**-24, 2.0**-11, 2.0**-8
#: Where float16 has its full precision, and how far rounding moves smaller numbers.
NORMAL, SUBNORMAL = 2.0**-14, 2.0**-25
#: Of values rounded to float16 and then to bfloat16, 1 in 16 is not what it is rounded at once.
TWICE = 1 / 6


def of_base(base: PreTrainedModel) -> str:
    """A hash over names, shapes and sampled values of the trunk.

    Values are rounded to bf16, so that a checkpoint has one fingerprint in float32 and bfloat16. Heads are left out:
    an adapter stores its own, and ``difference`` looks at the one it does not. Quantized weights count as what their
    bits stand for.
    """
    digest = hashlib.sha256(base.config.model_type.encode())
    for name, shape, sample in _sampled(base, SAMPLE):
        digest.update(f"{name}{shape}".encode())
        digest.update(sample.to(torch.bfloat16).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def describe(base: PreTrainedModel) -> dict[str, Any]:
    """What ``difference`` compares a base with: its fingerprint, a hash of names and shapes, a few values of the trunk
    and of the output head, and the settings of its config that change what it computes."""
    values, shapes = _kept(base)
    found = {"fingerprint": of_base(base), "shapes": shapes, "values": _packed(values), "config": settings(base.config)}
    head = _head(base)
    return found if head is None else {**found, "output": _packed(head)}


def difference(base: PreTrainedModel, described: Mapping[str, Any], *, head: bool = True) -> str | None:
    """In what a base differs from the one that was described, in words; None where it is the same.

    ``head`` is whether the output head counts. What an older description does not have is not compared.
    """
    if not matches(base, described):
        return f"a base with fingerprint {of_base(base)}"
    mine, theirs = settings(base.config), described.get("config") or {}
    for name in mine.keys() & theirs.keys():
        if mine[name] != theirs[name]:
            return f"a base with {name} = {mine[name]!r} (it was trained with {theirs[name]!r})"
    own = _head(base) if head and "output" in described else None
    other = None if own is None else _unpacked(described["output"], own.shape)
    if own is not None and (other is None or not (torch.equal(own, other) or _equal_but_for_rounding(own, other))):
        return "a base with other values in its output head"
    return None


def settings(config: Any) -> dict[str, Any]:
    """The settings of a config that change what a base computes and that its weights do not show."""
    found: dict[str, Any] = {}

    def collect(values: Mapping[str, Any], before: str, inside: bool) -> None:
        for name, value in values.items():
            counts = inside or (COMPUTES.search(name) is not None and NOT.search(name) is None)
            if isinstance(value, Mapping):
                collect({str(key): one for key, one in value.items()}, f"{before}{name}.", counts)
            elif counts and (value is None or isinstance(value, int | float | str | list)):
                found[before + name] = value

    collect(config.to_dict(), "", False)
    return found


def matches(base: PreTrainedModel, described: Mapping[str, Any]) -> bool:
    """Whether this is the base that was described, in whatever precision either of them is.

    Where the fingerprints differ (float16 rounds otherwise than bfloat16), the values must be equal within the
    rounding of the coarser precision. Without values, as older adapters have it, the fingerprint alone counts.
    """
    if described["fingerprint"] == of_base(base):
        return True
    mine, shapes = _kept(base)
    theirs = _unpacked(described.get("values"), mine.shape)
    return theirs is not None and described.get("shapes") == shapes and _equal_but_for_rounding(mine, theirs)


def _sampled(base: PreTrainedModel, count: int) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    """Name, shape and up to ``count`` values, as float32, of each parameter of the trunk."""
    with torch.no_grad():
        for name, parameter in base.base_model.named_parameters():
            plain = type(parameter.data) is Tensor
            flat = (parameter.detach() if plain else parameter.dequantize()).flatten()
            step = max(1, flat.numel() // count)
            yield name, tuple(parameter.shape), flat[::step][:count].float().cpu()


def _kept(base: PreTrainedModel) -> tuple[Tensor, str]:
    """A few values of each parameter (n, KEPT), and a hash of names and shapes."""
    digest = hashlib.sha256(base.config.model_type.encode())
    rows = []
    for name, shape, sample in _sampled(base, KEPT):
        digest.update(f"{name}{shape}".encode())
        rows.append(torch.nn.functional.pad(sample, (0, KEPT - len(sample))))
    return torch.stack(rows), digest.hexdigest()[:16]


def _head(base: PreTrainedModel) -> Tensor | None:
    """A few values of the output head's weight (n, KEPT); None where there is none, or one in fewer bits."""
    module = base.get_output_embeddings()
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or type(weight.data) is not Tensor or not weight.is_floating_point():
        return None
    flat = weight.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLE)][: SAMPLE // KEPT * KEPT].float().cpu().view(-1, KEPT)


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()


def _unpacked(packed: object, shape: torch.Size) -> Tensor | None:
    try:
        numbers = np.frombuffer(base64.b64decode(packed if isinstance(packed, str) else "", validate=True), "<f4")
    except (binascii.Error, ValueError):
        return None
    return torch.from_numpy(numbers.astype("f4")).view(shape) if numbers.size == shape.numel() else None


def _rounding(values: Tensor) -> Tensor:
    """How far the values of each tensor (n, KEPT) were rounded, by the coarsest precision that holds them all."""

    def exact(dtype: torch.dtype) -> Tensor:
        return (values.to(dtype).float() == values).all(1, keepdim=True)

    return torch.where(exact(torch.bfloat16), BRAIN, torch.where(exact(torch.float16), HALF, FULL))


def _equal_but_for_rounding(mine: Tensor, theirs: Tensor) -> bool:
    first, second = _rounding(mine), _rounding(theirs)
    if bool(((first == FULL) & (second == FULL)).any()):
        return False  # nothing was rounded: their fingerprints would be equal
    largest = torch.finfo(torch.float16).max
    a, b = mine.clamp(-largest, largest), theirs.clamp(-largest, largest)
    size = torch.maximum(a.abs(), b.abs())
    # What is in bfloat16 now may have been in float16 before, which moved it by HALF.
    near = (a - b).abs() <= (first + second + 2 * HALF) * size + 2 * SUBNORMAL
    twice = (a.bfloat16() != b.bfloat16()) & (size >= NORMAL)
    return bool(near.all()) and int(twice.sum()) <= max(4, TWICE * int((size >= NORMAL).sum()))
