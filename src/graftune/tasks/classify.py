"""Classification: by a trained head, or by the label word that a language model expects next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import metrics
from graftune.tasks.batches import by_length, inputs
from graftune.tasks.data import Row, bad_lines
from graftune.tasks.label_words import LabelWords, label_words
from graftune.tasks.task import (
    Evaluation,
    Features,
    Progress,
    Task,
    evaluating,
    first_virtual_id,
    fit,
    need_rows,
    pad_id,
    to_device,
    truncation,
)
from graftune.tasks.template import Template


@dataclass
class Classify(Task):
    """The target is one of the labels found in the training rows.

    By default a sequence classification head is trained with every method. With `verbalize`, or a
    `verbalizer` (label -> word), there is no head: a causal language model scores, as the next
    token after the template, the first token of each label's word (by default the label itself).
    """

    verbalizer: dict[str, str] | None = None
    verbalize: bool = False

    labels: tuple[str, ...] = field(default=(), init=False)
    _words: LabelWords | None = field(default=None, init=False, repr=False, compare=False)
    _tokenizer: Any = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "classify"
    metric: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        if self.verbalizer is not None:
            self.verbalize = True
            # Recipes may write labels as numbers; the data has them as text.
            self.verbalizer = {str(label): str(word) for label, word in self.verbalizer.items()}
            self._learn(self.verbalizer)

    @property
    def instruction(self) -> str:
        return f"Which one is this: {', '.join(self._word(label) for label in self._known())}?"

    @property
    def auto_class(self) -> str:
        return "AutoModelForCausalLM" if self.verbalize else "AutoModelForSequenceClassification"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Modules with parameters beside the base's encoder or decoder, without its pooler.

        Raises GraftuneError for a base that has a language model's head, or none.
        """
        if self.verbalize:
            return ()
        body = base.base_model
        names = tuple(
            name
            for name, module in base.named_children()
            if module is not body and name != "pooler" and any(True for _ in module.parameters())
        )
        if body is base or not names or base.get_output_embeddings() is not None:
            raise GraftuneError(
                "the base has no classification head",
                received=type(base).__name__,
                expected=f"a base from {self.auto_class}",
                do=f"load it with {self.auto_class}, or classify by label words: verbalize=True",
            )
        return names

    def prepare(self, rows: Sequence[Row]) -> None:
        """The labels are those of the verbalizer, or all that occur in `rows`, sorted.

        Raises GraftuneError for fewer than two labels, or one that the verbalizer lacks.
        """
        if self.verbalizer is None:
            self._learn({row.target for row in rows})
        self.check(rows)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise GraftuneError for rows with an unknown label, with their lines."""
        known = self._known()
        problems = {
            row.line: f"unknown label {row.target!r} (known: {', '.join(map(repr, known))})"
            for row in rows
            if row.target not in known
        }
        if problems:
            raise bad_lines("labels", problems)

    def model_arguments(self, tokenizer: Any = None) -> dict[str, Any]:
        """The labels, and the padding token, by which a decoder's head finds the last token of a row."""
        if self.verbalize:
            return {}
        known = self._known()
        arguments: dict[str, Any] = {
            "num_labels": len(known),
            "id2label": dict(enumerate(known)),
            "label2id": {label: index for index, label in enumerate(known)},
        }
        return arguments if tokenizer is None else arguments | {"pad_token_id": pad_id(tokenizer)}

    def encode(
        self,
        row: Row,
        tokenizer: Any,
        template: Template,
        first_virtual_id: int,
        max_length: int | None = None,
    ) -> Features:
        """ids = template(input), for label words up to where the word would stand; one label."""
        self.check([row])
        lead = self._label_words(tokenizer).lead if self.verbalize else []
        prompt = fit(
            template,
            row,
            tokenizer,
            first_virtual_id,
            max_length,
            reserved=len(lead),
            suffix=not self.verbalize,
        )
        return Features(prompt.ids + lead, self._known().index(row.target), prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, int64 (rows,)."""
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = torch.tensor([item.labels for item in features])
        return batch

    def scores(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """float32 (rows, labels): the head's logits, or those of the label words at each row's end.

        Padding may stand on either side.
        """
        if not self.verbalize:
            return outputs.logits.float()
        if self._words is None:
            raise GraftuneError(
                "the label words have no tokens yet",
                received="outputs to score before any row was encoded",
                expected="rows encoded by this task",
                do="call encode with the base's tokenizer first",
            )
        logits, mask = outputs.logits, batch["attention_mask"]
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)
        rows = torch.arange(mask.shape[0], device=logits.device)
        words = torch.tensor(self._words.ids, device=logits.device)
        return logits[rows, last.to(logits.device)][:, words].float()

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean over rows."""
        scores = self.scores(outputs, batch)
        return cross_entropy(scores, batch["labels"].to(scores.device), label_smoothing=smoothing)

    def demonstration(self, row: Row) -> str:
        """`input word`, a line.

        Raises GraftuneError with a classification head, which reads no examples.
        """
        if not self.verbalize:
            raise GraftuneError(
                "a classification head cannot learn from examples in its input",
                received="few-shot examples without label words",
                expected="a task that answers in words",
                do="classify by label words: verbalize=True",
            )
        self.check([row])
        return f"{row.input} {self._word(row.target)}\n"

    def evaluate(
        self,
        model: AdaptedModel,
        tokenizer: Any,
        rows: Sequence[Row],
        adapter: str | None,
        template: Template,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Accuracy, macro F1 and mean loss; each prediction has the probabilities of all labels.

        Raises GraftuneError for unknown labels, and for a base that cannot tell padding from text.
        """
        need_rows(rows)
        self.check(rows)
        padding = pad_id(tokenizer) if self.verbalize else _padding(model)
        virtual = first_virtual_id(model)
        features = [self.encode(row, tokenizer, template, virtual, max_length) for row in rows]
        log_probabilities: list[list[float]] = [[]] * len(rows)
        with evaluating(model):
            for indices in by_length([len(item.ids) for item in features], batch_size):
                batch = to_device(self.collate([features[i] for i in indices], padding), model)
                outputs = model(**self.inputs(batch), adapters=adapter)
                found = self.scores(outputs, batch).log_softmax(-1).tolist()
                for i, values in zip(indices, found, strict=True):
                    log_probabilities[i] = values
                if progress is not None:
                    progress(len(indices))
        known = self._known()
        truth = [known.index(row.target) for row in rows]
        guesses = [max(range(len(known)), key=values.__getitem__) for values in log_probabilities]
        loss = -sum(values[i] for values, i in zip(log_probabilities, truth, strict=True)) / len(rows)
        predictions = [
            {
                "line": row.line,
                "input": row.input,
                "target": row.target,
                "prediction": known[guess],
                "probabilities": dict(zip(known, torch.tensor(values).exp().tolist(), strict=True)),
            }
            for row, guess, values in zip(rows, guesses, log_probabilities, strict=True)
        ]
        cut = sum(item.truncated for item in features)
        scores = metrics.classification(guesses, truth) | {"loss": loss}
        return Evaluation(scores, predictions, {"truncated": truncation(cut, len(rows))})

    def state(self) -> dict[str, Any]:
        return super().state() | {"labels": list(self.labels)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        task = super().from_state(state)
        task.labels = tuple(state["labels"])
        return task

    def _learn(self, labels: Iterable[str]) -> None:
        names = sorted(set(labels), key=_natural)
        if len(names) < 2:
            raise GraftuneError(
                "classification needs two labels or more",
                received=", ".join(map(repr, names)) or "none",
                expected="at least two different targets in the training rows",
                do="check the target column",
            )
        self.labels = tuple(names)

    def _known(self) -> tuple[str, ...]:
        if not self.labels:
            raise GraftuneError(
                "the labels are not known yet",
                received="a new Classify task",
                expected="a task that has seen the training rows",
                do="call prepare(rows) first, or give a verbalizer",
            )
        return self.labels

    def _word(self, label: str) -> str:
        return self.verbalizer[label] if self.verbalizer is not None else label

    def _label_words(self, tokenizer: Any) -> LabelWords:
        """The tokens of the label words, found once for each tokenizer."""
        if self._words is None or self._tokenizer is not tokenizer:
            self._words = label_words(tokenizer, {label: self._word(label) for label in self._known()})
            self._tokenizer = tokenizer
        return self._words


def _natural(label: str) -> tuple[bool, int, str]:
    """Whole numbers first and by value, then names: 2 before 10."""
    number = label.removeprefix("-").isdecimal()
    return (not number, int(label) if number else 0, label)


def _padding(model: AdaptedModel) -> int:
    padding = model.config.get_text_config().pad_token_id
    if padding is None:
        raise GraftuneError(
            "the base has no padding token, by which its head finds the end of a row",
            received="pad_token_id=None in the base's config",
            expected="the id that the batches are padded with",
            do="load the base with **task.model_arguments(tokenizer)",
        )
    return int(padding)
