"""Quantized bases: frozen weights in 8 or 4 bits, through torchao and bitsandbytes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from graftune.errors import GraftuneError, unknown

#: Kind -> the package that does it.
KINDS = {"int8": "torchao", "nf4": "bitsandbytes"}
#: Heads stay as they are: the methods train copies of them.
HEADS = ["lm_head", "score", "classifier", "classification_head", "head", "decoder"]


def quantization(kind: str | None, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Keyword arguments of ``from_pretrained`` for weights of this kind; none for None.

    "int8" is torchao's 8-bit weights, "nf4" the 4-bit normal floats of bitsandbytes (Dettmers et al. 2023). Raises
    GraftuneError for an unknown kind, a package that is not installed, or a device that cannot train through it.
    """
    if kind is None:
        return {}
    if kind not in KINDS:
        raise unknown("kind of quantized weights", kind, KINDS)
    if find_spec(KINDS[kind]) is None:
        raise GraftuneError(
            f"quantize={kind} needs {KINDS[kind]}",
            received=f"no package {KINDS[kind]}",
            expected="it installed beside graftune",
            do=f"pip install {KINDS[kind]}, or leave quantize out",
        )
    if kind == "nf4":
        if device.type != "cuda":  # there bitsandbytes repacks the weights for a product that has no gradient
            raise GraftuneError(
                "4-bit weights cannot be trained through on this device",
                received=f"quantize=nf4 on {device.type}",
                expected="a CUDA device",
                do="use quantize=int8, or leave quantize out",
            )
        from transformers import BitsAndBytesConfig

        four_bits = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
        return {
            "quantization_config": BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=HEADS, **four_bits),
            "device_map": {"": device},
        }
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=HEADS)}
