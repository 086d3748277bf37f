"""Loading a base as what it was saved as, without a task or a tokenizer."""

from __future__ import annotations

from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel

from graftune.bases.loading import quiet, resolve, short
from graftune.errors import GraftuneError


def load_saved(name: str) -> PreTrainedModel:
    """The base in eval mode, of the class that its config names. Raises GraftuneError for one that cannot be loaded."""
    folder = resolve(name)
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder)
            base: PreTrainedModel = _class_of(config).from_pretrained(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise GraftuneError(
            f"cannot load the base {name!r}",
            received=short(error),
            expected="a complete Transformers folder: config and weights",
            do="save or download it again",
        ) from error
    return base.eval()


def _class_of(config: Any) -> Any:
    """The first class that the config names and Transformers has; else the Auto class of plain trunks."""
    found = (getattr(transformers, name, None) for name in config.architectures or ())
    return next((cls for cls in found if cls is not None), transformers.AutoModel)
