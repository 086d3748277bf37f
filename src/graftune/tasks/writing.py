"""Writing: tasks whose answer is text that the base writes, left to right or by a decoder that reads its encoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graftune.bases.head import Head
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError, unknown
from graftune.tasks import metrics
from graftune.tasks.batches import IGNORED, inputs, pad
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder, truncation
from graftune.tasks.targets import many_target_ids, target_form
from graftune.tasks.task import Task
from graftune.templates.template import Encoded
from graftune.templates.tokens import reader

EXAMPLES_END = "\n\n"
"""What follows each solved example; where a base that was not trained writes it, its answer is over."""


@dataclass(frozen=True)
class Pair(Features):
    """What an encoder reads (`ids`) and what its decoder has to write (`labels`)."""

    @property
    def length(self) -> int:
        return max(len(self.ids), len(self.labels))


class WritingTask(Task):
    """A task whose answer is written. `generation` are further settings for Transformers' `generate`."""

    new_head: ClassVar[bool] = False

    max_new_tokens: int
    num_beams: int
    generation: Mapping[str, Any]

    def head(self, config: Any) -> Head:
        auto_class = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
        return Head(self.name, auto_class, new=self.new_head)

    @abstractmethod
    def scores(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> metrics.Scores:
        """The scores of texts against the references of each."""

    def check_lengths(self) -> None:
        """Raise GraftuneError for a length or a number of beams below 1, and for settings that `generate` refuses."""
        _check_generation(self.name, self.generation)
        for name in ("max_new_tokens", "num_beams"):
            if (value := getattr(self, name)) < 1:
                raise GraftuneError(f"{name} is too small", received=value, expected="1 or more", do=f"raise {name}")


#: Settings of `generate` that change what it gives, not what it writes, or that the task sets itself.
NOT_FREE = frozenset(
    {
        *("return_dict_in_generate", "num_return_sequences", "output_scores", "output_logits", "output_attentions"),
        *("output_hidden_states", "stop_strings", "max_length", "max_new_tokens", "num_beams"),
    }
)


#: Settings whose values are looked at by the classes that use them.
VALUES = {
    "temperature": "TemperatureLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram_size": "NoRepeatNGramLogitsProcessor",
}


def _check_generation(task: str, settings: Mapping[str, Any]) -> None:
    """Raise GraftuneError for settings that Transformers' `generate` does not know, or does not take together."""
    if not settings:
        return
    import transformers

    known = vars(transformers.GenerationConfig()).keys()
    for name in settings:
        if name not in known:
            raise unknown(f"setting in {task}.generation", name, known - NOT_FREE)
        if name in NOT_FREE:
            raise GraftuneError(
                f"{task}.generation does not take {name!r}",
                received=f"{name}={settings[name]!r}",
                expected="settings of how a text is written",
                do=f"use {task}.{name}" if name in ("max_new_tokens", "num_beams") else "leave it out",
            )
    try:
        transformers.GenerationConfig(**settings).validate(strict=True)
        for name, checks in VALUES.items():
            if settings.get(name) is not None:
                getattr(transformers, checks)(settings[name])
    except (ValueError, TypeError) as error:
        raise GraftuneError(
            f"bad settings in {task}.generation",
            received=f"{dict(settings)}: {' '.join(str(error).split())}",
            expected="settings that Transformers' generate takes together",
            do="change or leave out what it names",
        ) from error


class BoundWriting(BoundTask):
    """A writing task on one base. Its answers are texts, one for each group of rows with the same input."""

    task: WritingTask

    def __init__(self, task: WritingTask, config: Any, processor: Any) -> None:
        super().__init__(task, config, processor)
        self.is_encoder_decoder: bool = config.is_encoder_decoder
        self.targets = target_form(processor, config)

    @property
    def end(self) -> int:
        """The token that ends a text that is trained on. Raises GraftuneError where the tokenizer has none."""
        if self.targets is not None and self.targets.closing:
            return self.targets.closing[0]
        if self.processor.eos_token_id is None:
            raise GraftuneError(
                "the tokenizer has no end-of-text token",
                received=f"eos_token_id=None in {type(self.processor).__name__}",
                expected="a token that ends a generated text",
                do='set tokenizer.eos_token, for example "</s>"',
            )
        return int(self.processor.eos_token_id)

    @property
    def ends(self) -> set[int]:
        """All tokens that end an answer."""
        return {self.end}

    def questions(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows that are asked for an answer: each, but for conversations with several."""
        return rows

    @abstractmethod
    def prompt(self, row: Row, encoder: PromptEncoder, reserved: int = 0) -> Encoded:
        """What the model reads before it writes, with room for `reserved` tokens within the maximum length."""

    @abstractmethod
    def answer(self, row: Row) -> list[int]:
        """The target's tokens, and the one that ends the text."""

    def target(self, text: str) -> list[int]:
        """The tokens of a target and the one that ends it; an encoder-decoder's with all that belongs around it."""
        return self.many_targets([text])[0]

    def many_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """As `target` for each text."""
        if self.targets is None:
            return [[*ids, self.end] for ids in reader(self.processor).ids(texts)]
        found = many_target_ids(self.processor, texts)
        return found if self.targets.closing else [[*ids, self.end] for ids in found]

    @property
    def fixed_settings(self) -> dict[str, int]:
        """What generation has to begin with, so that it is what was trained."""
        if self.targets is None:
            return {}
        first = {"forced_bos_token_id": self.targets.opening[0]} if self.targets.opening else {}
        return {"decoder_start_token_id": self.targets.start, **first}

    def target_length(self, row: Row) -> int:
        """How many tokens the row's target has, the end of text included."""
        return len(self.answer(row))

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """ids = prompt + target + end of text, labels on the last two only; of an encoder-decoder each by itself."""
        answer = self.answer(row)
        reserved = 0 if self.is_encoder_decoder else len(answer)
        return [self.joined(self.prompt(row, encoder, reserved), answer, encoder)]

    def joined(self, prompt: Encoded, answer: list[int], encoder: PromptEncoder) -> Features:
        """The features of a prompt and its answer."""
        if self.is_encoder_decoder:
            kept = answer[: encoder.target_length]
            return Pair(prompt.ids, kept, prompt.truncated or len(kept) < len(answer))
        return Features(prompt.ids + answer, [IGNORED] * len(prompt.ids) + answer, prompt.truncated)

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids`, `attention_mask` and `labels`, int64 (rows, longest or `width`), padded on the right.

        For an encoder-decoder also `decoder_input_ids`: the labels, one later, after the token that starts a text.
        """
        if self.targets is None:
            return inputs(features, self.pad_id, width=width) | {
                "labels": pad([item.labels for item in features], IGNORED, width=width)
            }
        return inputs(features, self.pad_id) | {
            "labels": pad([item.labels for item in features], IGNORED),
            "decoder_input_ids": pad([self.targets.decoder_inputs(item.labels) for item in features], self.pad_id),
        }

    def next_tokens(self, batch: Batch) -> Tensor:
        """Each position predicts the label of the next; a decoder's inputs are one later already."""
        labels: Tensor = batch["labels"]
        return labels if self.is_encoder_decoder else nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)

    def counts(self, batch: Batch) -> Tensor:
        """The number of target tokens of each row."""
        return (self.next_tokens(batch) != IGNORED).sum(-1, keepdim=True).float()

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The summed cross-entropy over the target tokens of each row."""
        wanted = self.next_tokens(batch)
        chosen = wanted != IGNORED
        # Only the targets' logits are widened: those of all positions would fill the memory.
        logits = outputs.logits[chosen].float()
        each = cross_entropy(logits, wanted[chosen], label_smoothing=smoothing, reduction="none")
        sums = torch.zeros(len(wanted), device=each.device)
        return sums.index_add(0, chosen.nonzero()[:, 0], each)[:, None]

    def decode(self, outputs: Any, batch: Batch) -> list[str]:
        """The text of each row of written ids, int64 (rows, new tokens), up to the first of the tokens that end one."""
        ends = set(batch["ends"])
        texts = []
        for ids in outputs.tolist():
            stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            texts.append(self.processor.decode(ids[:stop], skip_special_tokens=True).strip())
        return texts

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """The task's scores of the text of each group of rows; `features` has the prompts."""
        texts = [own[0] for own in answers]
        references = [self.references(row) for row in rows]
        scores = self.task.scores(texts, references)
        predictions = [
            {"line": row.line, "input": self.display(row), "prediction": text, "references": own}
            for row, text, own in zip(rows, texts, references, strict=True)
        ]
        notes = {**scores.notes, "truncated": truncation(features)}
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def references(self, row: Row) -> list[str]:
        """What the text of a group of rows is compared with."""
        return list(row.references or (row.target,))
