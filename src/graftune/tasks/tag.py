"""Tagging: a label for every word, such as the names of entities in BIO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row, bad_lines
from graftune.tasks import labels, metrics
from graftune.tasks.batches import IGNORED, inputs, pad
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.labelled import Labelled
from graftune.tasks.windows import room_for, windows
from graftune.templates.words import words_ids


@dataclass(frozen=True)
class Words(Features):
    """One window of a row; ``words`` are the numbers of the words whose tags stand in ``labels``, in order."""

    words: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Tag(Labelled):
    """Input: a list of words; target: a list of as many tags. The first token of each word carries its tag.

    Tags such as B-Disease and I-Disease are scored by entities (`seqeval`), others by words. A row that does not fit is
    read in windows that overlap by `stride` tokens, each word tagged in the window that shows more around it. Words
    without a token (a zero-width space) cannot be tagged: they count as `O`.
    """

    pattern: str = "{input}"
    labels: tuple[str, ...] | None = None
    stride: int = 32

    name: ClassVar[str] = "tag"
    metric: ClassVar[str] = "f1"
    columns: ClassVar[Columns] = Columns(
        ("tokens", "words", "input", "text"),
        ("tags", "ner_tags", "labels", "target", "upos"),
        values.words,
        values.words,
    )

    @property
    def expectation(self) -> str:
        return "a tag that the training rows have for every word"

    def fit(self, rows: Sequence[Row]) -> Self:
        """Tags: all that occur in rows that have one for each word. Raises GraftuneError where no row has."""
        if rows and not any(len(row.target) == len(row.input) for row in rows):
            raise bad_lines(self.name, {row.line: _lengths(row) for row in rows}, "a tag for every word")
        found = (tag for row in rows if len(row.target) == len(row.input) for tag in row.target)
        return replace(self, labels=labels.labels_of(found, self.labels))

    def problem(self, row: Row) -> str | None:
        """Another number of tags than of words, or an unknown tag."""
        if len(row.target) != len(row.input):
            return _lengths(row)
        strange = [tag for tag in row.target if tag not in self.known]
        return labels.unknown_label(strange[0], self.known) if strange else None

    def head(self, config: Any) -> Head:
        return Head(self.name, "AutoModelForTokenClassification", labels=self.known)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundTag(self, config, processor)


def _lengths(row: Row) -> str:
    return f"{len(row.input)} words and {len(row.target)} tags"


class BoundTag(BoundTask):
    """Tagging on one base."""

    task: Tag

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Words]:
        """Windows of the words' tokens in the filled template; labels: a tag's number on each word's first token."""
        ids, numbers = words_ids(self.processor, list(row.input))
        room = room_for(row, "input", encoder, 0)
        stride = 0 if room is None else min(self.task.stride, room // 2)
        spans = list(windows(len(ids), room, stride))
        firsts = {number: place for place, number in reversed(list(enumerate(numbers))) if number is not None}
        # A word in the overlap of two windows belongs to the one whose edge is farther away.
        borders = [0, *((after.start + before.stop) // 2 for before, after in pairwise(spans)), len(ids)]
        tags = [self.task.known.index(tag) for tag in row.target]
        return [
            self._window(
                row, encoder, ids, span, {place: n for n, place in firsts.items() if low <= place < high}, tags
            )
            for span, (low, high) in zip(spans, pairwise(borders), strict=True)
        ]

    def _window(
        self,
        row: Row,
        encoder: PromptEncoder,
        ids: Sequence[int],
        span: range,
        words: dict[int, int],
        tags: Sequence[int],
    ) -> Words:
        """The tokens `span` in the template; `words` has the number of the word that begins at each place."""
        prompt = encoder.fit(row, values={"input": ids[span.start : span.stop]})
        start, _ = prompt.places["input"]
        wanted = [IGNORED] * len(prompt.ids)
        for place, number in words.items():
            wanted[start + place - span.start] = tags[number]
        return Words(prompt.ids, wanted, prompt.truncated, words=[words[place] for place in sorted(words)])

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids`, `attention_mask` and `labels`, int64 (rows, longest or `width`), padded on the right."""
        wanted = pad([item.labels for item in features], IGNORED, width=width)
        return inputs(features, self.pad_id, width=width) | {"labels": wanted}

    def counts(self, batch: Batch) -> Tensor:
        """The number of words of each window."""
        return (batch["labels"] != IGNORED).sum(-1, keepdim=True).float()

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The summed cross-entropy over the words of each window."""
        logits, wanted = outputs.logits, batch["labels"]
        chosen = wanted != IGNORED
        each = cross_entropy(logits[chosen].float(), wanted[chosen], label_smoothing=smoothing, reduction="none")
        rows = chosen.nonzero()[:, 0]
        return torch.zeros(len(wanted), device=logits.device).index_add(0, rows, each)[:, None]

    def decode(self, outputs: Any, batch: Batch) -> list[list[int]]:
        """The likeliest tag of every word of a window."""
        chosen = batch["labels"] != IGNORED
        return [own[mask].argmax(-1).tolist() for own, mask in zip(outputs.logits, chosen, strict=True)]

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Precision, recall and F1 of entities, accuracy of words."""
        guesses = [self._tags(row, own, found) for row, own, found in zip(rows, features, answers, strict=True)]
        scores = metrics.tags(guesses, [list(row.target) for row in rows])
        predictions = [
            {
                "line": row.line,
                "input": self.display(row),
                "target": metrics.marked(row.input, row.target),
                "prediction": metrics.marked(row.input, guess),
                "tags": guess,
            }
            for row, guess in zip(rows, guesses, strict=True)
        ]
        tagged = sum(len(window.words) for own in features for window in own if isinstance(window, Words))
        words = sum(len(row.input) for row in rows)
        split = sum(len(own) > 1 for own in features)
        notes = {
            **scores.notes,
            "windows": f"{split} of {len(rows)} rows read in more than one window; "
            f"{words - tagged} of {words} words have no token",
        }
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def _tags(self, row: Row, features: Sequence[Features], answers: Sequence[Sequence[int]]) -> list[str]:
        """A tag for each word of a row: the predicted one by the word's number, `O` for a word without a token."""
        known = self.task.known
        tags = ["O" if "O" in known else known[0]] * len(row.input)
        for window, found in zip(features, answers, strict=True):
            assert isinstance(window, Words)
            for number, tag in zip(window.words, found, strict=True):
                tags[number] = known[tag]
        return tags

    def display(self, row: Row) -> str:
        return " ".join(row.input)

    def dummy_target(self, row: Row) -> Any:
        return tuple(self.task.known[0] for _ in row.input)
