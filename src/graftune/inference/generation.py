"""Writing: the text of each row, in batches, with what the checkpoint says of generation and what the task sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graftune.datasets.rows import Row, grouped
from graftune.errors import GraftuneError
from graftune.inference.running import Progress, to_device
from graftune.model.adapted import AdaptedModel
from graftune.tasks.batches import by_length, inputs
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.writing import EXAMPLES_END, BoundWriting
from graftune.templates.template import Encoded

#: Settings of a checkpoint that say how its text has to begin or end, or which are ids: not worth a remark.
STRUCTURAL = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"),
        *("use_cache", "cache_implementation", "max_length", "max_new_tokens", "num_beams", "do_sample"),
        *("temperature", "top_k", "top_p", "min_p", "typical_p"),  # of sampling, which is not done here
        *("is_assistant", "num_assistant_tokens", "_from_model_config", "return_dict_in_generate"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    }
)


@dataclass(frozen=True)
class Written:
    """The texts of groups of rows with one input, the prompts that they answer, and notes on how they were written."""

    groups: list[Row]
    prompts: list[Encoded]
    texts: list[str]
    notes: dict[str, str]


def write(
    model: AdaptedModel,
    task: BoundWriting,
    rows: Sequence[Row],
    adapter: str | None,
    encoder: PromptEncoder,
    batch_size: int,
    progress: Progress | None = None,
) -> Written:
    """What the model writes for each group of rows with one input.

    Prompts are cut to the maximum length and to what the base's positions leave beside `max_new_tokens`. A base that
    was not trained goes on after its answer: what follows the first blank line is left out.
    """
    groups = grouped(task.questions(rows), task.group_key)
    limit = prompt_limit(task, encoder.max_length, task.task.max_new_tokens)
    prompts = [task.prompt(row, replace(encoder, max_length=limit)) for row in groups]
    for row, prompt in zip(groups, prompts, strict=True):
        encoder.check(row.line, prompt.ids)
    ends = end_ids(model, task)
    settings = {
        "max_new_tokens": task.task.max_new_tokens,
        "num_beams": task.task.num_beams,
        "do_sample": False,
        "pad_token_id": task.pad_id,
        "eos_token_id": ends,
        **task.fixed_settings,
        **task.task.generation,
    }
    texts = [""] * len(groups)
    for indices in by_length([len(prompt.ids) for prompt in prompts], batch_size):
        # Padding is on the left, so that every row's next token follows its own last one.
        batch = inputs([Features(prompts[i].ids, None) for i in indices], task.pad_id, side="left")
        width = 1 if task.is_encoder_decoder else batch["input_ids"].shape[1]
        ids = model.generate(**to_device(batch, model), adapters=adapter, **settings)
        for i, text in zip(indices, task.decode(ids[:, width:], {"ends": ends}), strict=True):
            texts[i] = text if is_trained(model, adapter) else text.split(EXAMPLES_END)[0].strip()
        if progress is not None:
            progress(sum(len(groups[i].references) for i in indices))
    return Written(groups, prompts, texts, _notes(model, task, groups))


def is_trained(model: AdaptedModel, adapter: str | None) -> bool:
    """Whether an adapter has learned where an answer ends."""
    return adapter is not None and model.adapter(adapter).method.trainable


def end_ids(model: AdaptedModel, task: BoundWriting) -> list[int]:
    """All tokens that end a text: what is trained on, and what the checkpoint's own settings name."""
    own = getattr(getattr(model.base, "generation_config", None), "eos_token_id", None)
    several = own if isinstance(own, list | tuple) else [own]
    return list(dict.fromkeys([*sorted(task.ends), *(int(token) for token in several if token is not None)]))


def from_checkpoint(model: AdaptedModel) -> dict[str, Any]:
    """What the checkpoint's own generation settings change, beside ids and sampling."""
    config = getattr(model.base, "generation_config", None)
    if config is None:
        return {}
    changed: Mapping[str, Any] = config.to_diff_dict()
    return {name: value for name, value in changed.items() if name not in STRUCTURAL and value is not None}


def taken(model: AdaptedModel, task: BoundWriting) -> str:
    """What of the checkpoint's own generation settings is obeyed, in words; empty where it is nothing."""
    own = {**task.task.generation, **task.fixed_settings}
    listed = [f"{name}={value}" for name, value in sorted(from_checkpoint(model).items()) if name not in own]
    how = f" (set {task.task.name}.generation to change it)"
    return f"from the checkpoint: {', '.join(listed)}{how}" if listed else ""


def _notes(model: AdaptedModel, task: BoundWriting, groups: Sequence[Row]) -> dict[str, str]:
    notes = {}
    if remark := taken(model, task):
        notes["generation"] = remark
    long = sum(task.target_length(row) > task.task.max_new_tokens for row in groups)
    if long:
        notes["max_new_tokens"] = (
            f"{long} of {len(groups)} references are longer than max_new_tokens={task.task.max_new_tokens}"
        )
    return notes


def prompt_limit(task: BoundWriting, max_length: int | None, new_tokens: int) -> int | None:
    """The longest prompt beside the new tokens, which an encoder-decoder writes elsewhere."""
    if max_length is None or task.is_encoder_decoder:
        return max_length
    if max_length <= new_tokens:
        raise GraftuneError(
            "max_new_tokens leaves no room for a prompt",
            received=new_tokens,
            expected=f"less than the {max_length} tokens that a row may have",
            do=f"lower {task.task.name}.max_new_tokens, or raise max_length where the base has more positions",
        )
    return max_length - new_tokens
