"""Cloze: classification by the word that a language model expects. P-tuning (Liu et al. 2021), PET (Schick 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from graftune.datasets.rows import Row, bad_lines
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import labels
from graftune.tasks.classify import Classify
from graftune.tasks.features import Features, Reading
from graftune.tasks.label_words import LabelWords, label_words
from graftune.tasks.task import Task
from graftune.templates.template import Template


@dataclass
class Cloze(Classify):
    """The label is the one whose word is likeliest at `{mask}`: p(label) = softmax over the label words' logits.

    No head is trained. A masked language model reads the whole `pattern`; a causal one reads up to `{mask}` and
    predicts the next token. `verbalizer` gives each label its word, by default its own name. A word has to be one
    token, or, with `words="first"`, is known by its first. Without any method this is PET's zero-shot baseline.
    """

    pattern: str = "{input} {mask}"
    verbalizer: dict[str, str] | None = None
    words: Literal["single", "first"] = "single"

    _found: LabelWords | None = field(default=None, init=False, repr=False, compare=False)
    _masked: bool = field(default=False, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "cloze"

    def __post_init__(self) -> None:
        if self.words not in ("single", "first"):
            raise GraftuneError("bad value for 'words'", received=repr(self.words), expected="'single' or 'first'")
        if self.verbalizer is not None:
            # Recipes may write labels as numbers; the data has them as text.
            self.verbalizer = {str(label): str(word) for label, word in self.verbalizer.items()}
            self.labels = labels.found(self.verbalizer)

    @property
    def instruction(self) -> str:
        return f"Which one is this: {', '.join(self.word(label) for label in self.known())}?"

    def auto_class(self, config: Any) -> str:
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        # Encoders such as BERT can be loaded as decoders too; those that decode cannot fill a gap.
        masked = type(config) in AutoModelForMaskedLM._model_mapping and not config.is_encoder_decoder
        causal = type(config) in AutoModelForCausalLM._model_mapping
        return "AutoModelForMaskedLM" if masked or not causal else "AutoModelForCausalLM"

    def head_names(self, base: Any) -> tuple[str, ...]:
        return ()

    def prepare(self, rows: Sequence[Row]) -> None:
        """The labels are those of the verbalizer, or all that occur in `rows`, sorted."""
        if self.verbalizer is None:
            super().prepare(rows)

    def bind(self, config: Any, processor: Any) -> None:
        """Whether the base fills a gap, and the tokens of the label words."""
        self._masked = self.auto_class(config) == "AutoModelForMaskedLM"
        self._processor, self._found = processor, None

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """Rows with an unknown label, or one whose word is not one token where it has to be."""
        wrong = dict(super().problems(rows))
        if self._processor is not None and self.words == "single":
            long = self._label_words(self._processor).longer
            for row in rows:
                if row.target in long:
                    pieces = " ".join(map(repr, long[row.target]))
                    wrong[row.line] = (
                        f"label {row.target!r}: its word {self.word(row.target)!r} is not one token ({pieces})"
                    )
        return wrong

    @property
    def good_row(self) -> str:
        return "labels that the training rows have, whose words the tokenizer has one token for"

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        return {}

    def encode(self, row: Row, reading: Reading) -> Features:
        """ids = the filled template; for a causal model up to where the word would stand. One label."""
        lead = self._label_words(reading.processor).lead
        if self._masked:
            self._need_mask(reading.template)
            lead = []
        else:
            reading = replace(reading, template=reading.template.until_mask())
        prompt = reading.fit(row, reserved=len(lead), suffix=self._masked)
        ids = prompt.ids + lead
        if self._masked and ids.count(reading.processor.mask_token_id) != 1:
            raise bad_lines(
                self.name, {row.line: f"its text holds the token {reading.processor.mask_token}"}, "one hidden word"
            )
        return Features(ids, self.index(row), prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """As for Classify, and `places`, int64 (rows,): where the label word stands, or the token before it."""
        batch = super().collate(features, pad_id, width)
        mask = self._processor.mask_token_id if self._masked else None
        places = [len(item.ids) - 1 if mask is None else item.ids.index(mask) for item in features]
        batch["places"] = torch.tensor(places)
        return batch

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", "places")}

    def outputs(self, model: AdaptedModel, batch: dict[str, Any], adapter: str | None) -> Tensor:
        """Logits (rows, V) where the label words stand: the head looks at no other position."""
        hidden = model.hidden(**self.inputs(batch), adapters=adapter)
        return model.score(hidden[torch.arange(len(hidden), device=hidden.device), batch["places"]])

    def scores(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """float32 (rows, labels): the logits of the label words among `outputs`."""
        if self._found is None:
            raise GraftuneError(
                "the label words have no tokens yet",
                received="outputs to score before any row was encoded",
                expected="rows encoded by this task",
                do="call encode with the base's tokenizer first",
            )
        return outputs[:, torch.tensor(self._found.ids, device=outputs.device)].float()

    def demonstration(self, row: Row) -> str:
        """The task's template with the row's columns and the label word in their places."""
        self.check([row])
        return Template(self.pattern).written(row.texts, self.word(row.target)) + "\n"

    def padding(self, model: AdaptedModel, processor: Any) -> int:
        return Task.padding(self, model, processor)

    def word(self, label: str) -> str:
        """The word that stands for a label."""
        return self.verbalizer.get(label, label) if self.verbalizer is not None else label

    def _need_mask(self, template: Template) -> None:
        if not template.has_mask:
            raise GraftuneError(
                "the template has no {mask}",
                received=repr(template.text),
                expected="the place of the word that the masked language model has to find",
                do='write for example "{input} It was {mask}."',
            )

    def _label_words(self, tokenizer: Any) -> LabelWords:
        """The tokens of the label words, found once for each tokenizer."""
        if self._found is None or self._processor is not tokenizer:
            self._found = label_words(tokenizer, {label: self.word(label) for label in self.known()})
            self._processor = tokenizer
        return self._found
