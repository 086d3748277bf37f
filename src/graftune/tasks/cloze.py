"""Cloze: classification by the word that a language model expects. P-tuning (Liu et al. 2021), PET (Schick 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import CLASSES, Columns
from graftune.datasets.rows import Row, bad_lines
from graftune.errors import GraftuneError
from graftune.tasks import labels
from graftune.tasks.batches import inputs
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.bound_labels import BoundLabels
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.label_words import LabelWords, label_words
from graftune.tasks.labelled import Labelled
from graftune.templates.template import Template

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel


@dataclass(frozen=True)
class Cloze(Labelled):
    """The label is the one whose word is likeliest at `{mask}`: p(label) = softmax over the label words' logits.

    No head is trained. A masked language model reads the whole `pattern`; a causal one reads up to `{mask}` and
    predicts the next token. `verbalizer` gives each label its word, by default its own name. A word has to be one
    token, or, with `words="first"`, is known by its first. Without any method this is PET's zero-shot baseline.
    """

    pattern: str = "{input} {mask}"
    verbalizer: dict[str, str] | None = None
    words: Literal["single", "first"] = "single"
    labels: tuple[str, ...] | None = None

    name: ClassVar[str] = "cloze"
    metric: ClassVar[str] = "accuracy"
    new_head: ClassVar[bool] = False
    columns: ClassVar[Columns] = Columns(targets=CLASSES, target=values.label)

    def __post_init__(self) -> None:
        if self.words not in ("single", "first"):
            raise GraftuneError("bad value for 'words'", received=repr(self.words), expected="'single' or 'first'")

    @property
    def known(self) -> tuple[str, ...]:
        """The labels: the verbalizer's, or those named or found. Raises GraftuneError where they are still open."""
        if self.verbalizer is not None and self.labels is None:
            return labels.labels_of(map(str, self.verbalizer))
        return super().known

    @property
    def instruction(self) -> str:
        return f"Which one is this: {', '.join(self.word(label) for label in self.known)}?"

    @property
    def expectation(self) -> str:
        return "labels that the training rows have, whose words the tokenizer has one token for"

    def word(self, label: str) -> str:
        """The word that stands for a label; recipes may write labels as numbers, the data has them as text."""
        return next((str(word) for own, word in (self.verbalizer or {}).items() if str(own) == label), label)

    def fit(self, rows: Sequence[Row]) -> Self:
        """Labels: those of the verbalizer, or all that occur in `rows`."""
        if self.verbalizer is None and self.labels is None:
            return replace(self, labels=labels.labels_of(row.target for row in rows))
        return replace(self, labels=tuple(self.known))

    def problem(self, row: Row) -> str | None:
        return None if row.target in self.known else labels.unknown_label(row.target, self.known)

    def head(self, config: Any) -> Head:
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        # Encoders such as BERT can be loaded as decoders too; those that decode cannot fill a gap.
        masked = type(config) in AutoModelForMaskedLM._model_mapping and not config.is_encoder_decoder
        causal = type(config) in AutoModelForCausalLM._model_mapping
        auto_class = "AutoModelForMaskedLM" if masked or not causal else "AutoModelForCausalLM"
        return Head(self.name, auto_class, new=self.new_head)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundCloze(self, config, processor)

    def demonstration(self, row: Row) -> str:
        """The task's template with the row's columns and the label word in their places."""
        if problem := self.problem(row):
            raise bad_lines(self.name, {row.line: problem}, self.expectation)
        return Template(self.pattern).written(row.texts, self.word(row.target)) + "\n"


class BoundCloze(BoundLabels):
    """The gap, and the words that may fill it, on one base."""

    task: Cloze

    def __init__(self, task: Cloze, config: Any, processor: Any) -> None:
        super().__init__(task, config, processor, task.known)
        self.masked = task.head(config).auto_class == "AutoModelForMaskedLM"

    @cached_property
    def words(self) -> LabelWords:
        """The tokens of the label words. Raises GraftuneError for a word without a token, and for two with the same."""
        return label_words(self.processor, {label: self.task.word(label) for label in self.labels})

    def problem(self, row: Row) -> str | None:
        """Also a label whose word is not one token, where it has to be."""
        if (long := self.words.longer.get(row.target)) is None or self.task.words == "first":
            return None
        pieces = " ".join(map(repr, long))
        return f"label {row.target!r}: its word {self.task.word(row.target)!r} is not one token ({pieces})"

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """ids = the filled template; for a causal model up to where the word would stand. One label."""
        lead = self.words.lead
        if self.masked:
            _need_mask(encoder.template)
            lead = []
        else:
            encoder = replace(encoder, template=encoder.template.until_mask())
        prompt = encoder.fit(row, reserved=len(lead), suffix=self.masked)
        ids = prompt.ids + lead
        if self.masked and ids.count(self.processor.mask_token_id) != 1:
            raise bad_lines(
                self.task.name, {row.line: f"its text holds the token {self.processor.mask_token}"}, "one hidden word"
            )
        return [Features(ids, self.number(row), prompt.truncated)]

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """As for classification, and `places`, int64 (rows,): where the label word stands, or the token before it."""
        mask = self.processor.mask_token_id if self.masked else None
        places = [len(item.ids) - 1 if mask is None else item.ids.index(mask) for item in features]
        return inputs(features, self.pad_id, width=width) | {
            "labels": torch.tensor([item.labels for item in features]),
            "places": torch.tensor(places),
        }

    def model_inputs(self, batch: Batch) -> Batch:
        return {name: value for name, value in batch.items() if name not in ("labels", "places")}

    def outputs(self, model: AdaptedModel, batch: Batch, adapter: str | None) -> Tensor:
        """Logits (rows, V) where the label words stand: the head looks at no other position."""
        hidden = model.hidden(**self.model_inputs(batch), adapters=adapter)
        return model.score(hidden[torch.arange(len(hidden), device=hidden.device), batch["places"]])

    def scores(self, outputs: Any, batch: Batch) -> Tensor:
        """The logits of the label words."""
        return outputs[:, torch.tensor(self.words.ids, device=outputs.device)].float()


def _need_mask(template: Template) -> None:
    if not template.has_mask:
        raise GraftuneError(
            "the template has no {mask}",
            received=repr(template.text),
            expected="the place of the word that the masked language model has to find",
            do='write for example "{input} It was {mask}."',
        )
