"""Extraction: the answer to a question is a span of a text, which may be longer than the base can read at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError, unknown
from graftune.tasks import metrics
from graftune.tasks.batches import inputs
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.spans import best_span, best_threshold, located, located_tokens, positions
from graftune.tasks.task import Task
from graftune.tasks.windows import room_for, windows


@dataclass(frozen=True)
class Window(Features):
    """One window of a row's text. `start` is the position of its first token, `offsets` each token's characters."""

    start: int = 0
    offsets: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Extract(Task):
    """Input: a question; target: its answers, which stand in the column named by `context`; none = it has no answer.

    A text that does not fit is read in windows that overlap by `stride` tokens. The answer is the span with the largest
    sum of start and end logits over all windows, at most `longest` tokens long. A window that does not hold the answer
    is trained to point at its first position, whose logits are the score of having no answer; where the data has such
    questions, the answer is "" if that score exceeds the best span's by more than `null_threshold`, by default the one
    that gives the best F1 on a tenth of the training rows that are held out for it (0 before any training).
    """

    context: str = "context"
    pattern: str = "{input} {context}"
    stride: int = 64
    longest: int = 30
    window: int = 384
    unanswerable: bool | None = None
    null_threshold: float | None = None

    name: ClassVar[str] = "extract"
    metric: ClassVar[str] = "f1"
    columns: ClassVar[Columns] = Columns(
        ("question", "query", "input"),
        ("answers", "answer", "answer_text", "target"),
        values.text,
        values.located_answers,
        beside=values.PLACES,
    )

    def __post_init__(self) -> None:
        for option in ("stride", "longest", "window"):
            if getattr(self, option) < 1:
                raise GraftuneError(f"{option} is too small", received=getattr(self, option), expected="1 or more")
        if self.window <= self.stride:
            raise GraftuneError(
                "windows that overlap by all they hold do not move on",
                received=f"window={self.window}, stride={self.stride}",
                expected="a window that is longer than the stride, with room for the question",
                do="raise extract.window, or lower extract.stride",
            )

    @property
    def expectation(self) -> str:
        return f"a text in {self.context!r} that holds the answer, letter by letter"

    def fit(self, rows: Sequence[Row]) -> Self:
        """Whether some questions have no answer."""
        if self.unanswerable is not None:
            return self
        return replace(self, unanswerable=any(not row.target for row in rows))

    def problem(self, row: Row) -> str | None:
        """A text that does not hold any of the answers. Raises GraftuneError without the column of the text."""
        text = row.columns.get(self.context)
        if text is None:
            raise unknown("column", self.context, row.columns)
        if row.target and located(row.target, text) is None:
            answer = row.target[0]
            if answer.start is None or answer.text not in text:
                return f"{self.context!r} does not hold the answer {answer.text!r}"
            there = text[answer.start : answer.start + len(answer.text)]
            return f"the answer {answer.text!r} does not start at {answer.start}: {there!r} stands there"
        return None

    def head(self, config: Any) -> Head:
        return Head(self.name, "AutoModelForQuestionAnswering")

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundExtract(self, config, processor)


class BoundExtract(BoundTask):
    """Extraction on one base."""

    task: Extract

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Window]:
        """Windows over the text; labels are the positions [start, end] of the answer, [0, 0] where it is not in."""
        task = self.task
        encoder = replace(encoder, max_length=min(task.window, encoder.max_length or task.window))
        text = row.columns[task.context]
        tokens, places = located_tokens(encoder.processor, text)
        offsets = [[start, end] for start, end in places]
        answer = located(row.target, text)
        found = []
        for span in windows(len(tokens), room_for(row, task.context, encoder, task.stride), task.stride):
            prompt = encoder.fit(row, values={task.context: tokens[span.start : span.stop]})
            start, count = prompt.places[task.context]
            own = offsets[span.start : span.start + count]
            wanted = positions(answer, own, start)
            found.append(Window(prompt.ids, wanted, prompt.truncated, prompt.type_ids, start, own))
        return found

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, int64 (rows, 2).

        `spans` (rows, 2) has the first position of each window's text and the one after its last.
        """
        spans = [(w.start, w.start + len(w.offsets)) for w in features if isinstance(w, Window)]
        return inputs(features, self.pad_id, width=width) | {
            "labels": torch.tensor([item.labels for item in features]),
            "spans": torch.tensor(spans),
        }

    def model_inputs(self, batch: Batch) -> Batch:
        return {name: value for name, value in batch.items() if name not in ("labels", "spans")}

    def counts(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), 1, device=batch["labels"].device)

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """Half the cross-entropy of the start and half that of the end, over the text and the first position.

        Neither the question nor the padding can be pointed at, so that a row's loss does not depend on the batch.
        """
        sides = zip(_allowed(outputs, batch), batch["labels"].unbind(-1), strict=True)
        return sum((_cross_entropy(*side, smoothing) for side in sides), torch.zeros(()))[:, None] / 2

    def decode(self, outputs: Any, batch: Batch) -> list[tuple[float, int, int, float]]:
        """The best span of each window (its score, first and last token), and the score of having no answer."""
        start, end = outputs.start_logits.float(), outputs.end_logits.float()
        spans = [
            best_span(s[a:b], e[a:b], self.task.longest)
            for s, e, (a, b) in zip(start, end, batch["spans"].tolist(), strict=True)
        ]
        nulls = (start[:, 0] + end[:, 0]).tolist()
        return [(*span, null) for span, null in zip(spans, nulls, strict=True)]

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Exact match and F1 of words as SQuAD has them, 0 to 100; of questions without an answer apart."""
        spans = [self._best(*each) for each in zip(rows, features, answers, strict=True)]
        threshold = (self.task.null_threshold or 0.0) if self.task.unanswerable else math.inf
        texts = ["" if margin > threshold else text for text, margin in spans]
        margins = [margin for _, margin in spans]
        references = [[answer.text for answer in row.target] for row in rows]
        scores = metrics.spans(texts, references)
        predictions = [
            {"line": row.line, "input": row.input, "prediction": text, "references": own, "null_margin": margin}
            for row, text, own, margin in zip(rows, texts, references, margins, strict=True)
        ]
        long, count = sum(len(own) > 1 for own in features), sum(len(own) for own in features)
        notes = {**scores.notes, "windows": f"{long} of {len(rows)} texts read in more than one window, {count} in all"}
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def _best(self, row: Row, features: Sequence[Features], answers: Sequence[Any]) -> tuple[str, float]:
        """The best span of all windows, and by how much having no answer scores above it (SQuAD 2.0).

        That score is the least of the windows'.
        """
        (score, first, last, _), window = max(zip(answers, features, strict=True), key=lambda pair: pair[0][0])
        assert isinstance(window, Window)
        span = slice(0, 0) if first > last else slice(window.offsets[first][0], window.offsets[last][1])
        text = row.columns[self.task.context][span].strip()  # some tokens begin with their space
        return text, min(null for *_, null in answers) - score

    @property
    def needs_calibration(self) -> bool:
        return bool(self.task.unanswerable) and self.task.null_threshold is None

    def calibrate(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Self:
        """`null_threshold`: the one with the best mean F1 of these rows."""
        spans = [self._best(*each) for each in zip(rows, features, answers, strict=True)]
        references = [[answer.text for answer in row.target] for row in rows]
        margins = [margin for _, margin in spans]
        best = best_threshold(margins, [text for text, _ in spans], references)
        return type(self)(replace(self.task, null_threshold=best), self.config, self.processor)

    def dummy_target(self, row: Row) -> Any:
        return ()


def _allowed(outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Start and end logits, float32 (rows, length), with -inf outside of the text and the first position."""
    first, after = batch["spans"].to(outputs.start_logits.device)[..., None].unbind(1)
    places = torch.arange(outputs.start_logits.shape[1], device=outputs.start_logits.device)
    outside = ((places < first) | (places >= after)) & (places > 0)
    start, end = (
        logits.float().masked_fill(outside, -torch.inf) for logits in (outputs.start_logits, outputs.end_logits)
    )
    return start, end


def _cross_entropy(logits: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """(1 - s) · -log p(wanted) + s · the mean of -log p over what is allowed, for each row of logits (rows, length)."""
    logarithms = logits.log_softmax(-1)
    loss = -logarithms.gather(-1, wanted[:, None])[:, 0]
    if smoothing:
        finite = logarithms.isfinite()
        mean = logarithms.masked_fill(~finite, 0.0).sum(-1) / finite.sum(-1)
        loss = (1 - smoothing) * loss - smoothing * mean
    return loss
