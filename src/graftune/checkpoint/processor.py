"""Fingerprints of processors: which tokenizer or image processor an adapter was trained with."""

from __future__ import annotations

import hashlib
import json
from typing import Any

#: Words, numbers, signs, white space and other scripts: two tokenizers that read all of them alike are taken as one.
PROBE = "Hello, it's 3.14 %\n\tas  SAID: naïve café; 你好，世界。 Привет! <tag/> def f(x): return x[0]  \u2603 "
#: What an image processor does to an image.
STEPS = ("do_resize", "size", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
         "image_mean", "image_std", "resample")  # fmt: skip


def of_processor(processor: Any, *, chat: bool = False) -> str:
    """A hash over how a text, all special tokens and the whole vocabulary are numbered, or over an image's settings.

    With `chat` the chat template counts as well.
    """
    if hasattr(processor, "get_vocab"):
        vocabulary = sorted(processor.get_vocab().items())
        special = sorted(map(str, processor.all_special_tokens))
        state: Any = [processor(PROBE).input_ids, special, vocabulary]
        state += [processor.chat_template] if chat else []
    else:
        own = processor.to_dict() if hasattr(processor, "to_dict") else {}
        state = {name: own.get(name) for name in STEPS}
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:16]
