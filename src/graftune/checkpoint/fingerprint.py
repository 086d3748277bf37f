"""Fingerprints: which base an adapter was made for."""

from __future__ import annotations

import hashlib

import torch
from transformers import PreTrainedModel

SAMPLE = 64  # values looked at per tensor: enough to tell two trainings of one shape apart


def of_base(base: PreTrainedModel) -> str:
    """A hash over names, shapes and sampled values of the trunk.

    Values are rounded to bf16, so that one checkpoint has one fingerprint in every precision. Heads are left
    out: an adapter stores its own. Quantized weights count as what their bits stand for.
    """
    digest = hashlib.sha256(base.config.model_type.encode())
    trunk = base.base_model
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            plain = type(parameter.data) is torch.Tensor
            flat = (parameter.detach() if plain else parameter.dequantize()).flatten()
            step = max(1, flat.numel() // SAMPLE)
            sample = flat[::step][:SAMPLE].to(torch.bfloat16).float().cpu()
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]
