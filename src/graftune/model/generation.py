"""Generation: what ``AdaptedModel.generate`` is given and gives back, where ``base.generate`` sees other columns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.layout import Arranged
from graftune.model.vocabulary import rows_of


def named(base: PreTrainedModel, args: Sequence[Any], options: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The arguments of ``base.generate`` by name, with the start that it makes itself where there is no input.

    ``rows`` is how many rows there are then. Raises GraftuneError where the base has no token to start from.
    """
    bound = inspect.signature(base.generate).bind(*args, **options).arguments
    ready = {**bound, **bound.pop("kwargs", {})}
    main = ready.pop("inputs", None)
    if main is not None:
        ready[base.main_input_name] = main
    known = (base.main_input_name, "input_ids", "inputs_embeds", "encoder_outputs")
    if all(ready.get(name) is None for name in known) and base.main_input_name == "input_ids":
        bos = setting(base, ready, "bos_token_id")
        if bos is None:
            raise GraftuneError(
                "there is nothing to start from",
                received="no input_ids, and no bos_token_id in the base's generation settings",
                expected="ids, or a token that begins every text",
                do="pass input_ids, or bos_token_id",
            )
        ready["input_ids"] = torch.full((rows, 1), int(bos), device=base.device)
    return ready


def setting(base: PreTrainedModel, options: Mapping[str, Any], name: str) -> Any:
    """A setting of generation: the caller's, else that of the generation config in use."""
    config = options.get("generation_config") or base.generation_config
    return options[name] if options.get(name) is not None else getattr(config, name, None)


def fitted(base: PreTrainedModel, ready: dict[str, Any], arranged: Arranged | None) -> dict[str, Any]:
    """The arguments for a batch that is ``arranged.added`` columns wider than the caller's.

    A padding token that the embedding has no row for would be read after the end of a text: the end token stands
    for it, as where there is none.
    """
    ready = dict(ready)
    padding, end = setting(base, ready, "pad_token_id"), setting(base, ready, "eos_token_id")
    if padding is not None and not 0 <= int(padding) < rows_of(base):
        ends = [end] if isinstance(end, int) else [int(id) for id in ([] if end is None else end)]
        ready["pad_token_id"] = next((id for id in ends if 0 <= id < rows_of(base)), 0)
    if arranged is not None and not base.config.is_encoder_decoder:
        for limit, fresh in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            length = setting(base, ready, limit)
            if length and setting(base, ready, fresh) is None:
                ready[limit] = length + arranged.added
    return ready


def with_given(output: Any, given: Tensor, arranged: Arranged) -> Any:
    """What the base wrote, behind the caller's ids in place of the wider ones."""
    ids = output if isinstance(output, Tensor) else output.sequences
    prompt = given.repeat_interleave(ids.shape[0] // given.shape[0], dim=0)
    ids = torch.cat([prompt, ids[:, prompt.shape[1] + arranged.added :]], dim=1)
    if isinstance(output, Tensor):
        return ids
    output.sequences = ids
    return output
