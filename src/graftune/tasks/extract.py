"""Extraction: the answer to a question is a span of a text, which may be longer than the base can read at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError, unknown
from graftune.tasks import labels, metrics
from graftune.tasks.batches import inputs
from graftune.tasks.features import Features, Reading
from graftune.tasks.task import Evaluation, Task


@dataclass(frozen=True)
class Window(Features):
    """One window of a row's text. `start` is the position of its first piece, `offsets` each piece's characters."""

    start: int = 0
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass
class Extract(Task):
    """Input: a question; target: the answer, which stands in the column named by `context`.

    A text that does not fit is read in windows, each starting `stride` pieces before the last one's end. The answer
    is the span with the largest sum of start and end logits over all windows, at most `longest` pieces long. A window
    that does not hold the answer is trained to point at its first position.
    """

    context: str = "context"
    pattern: str = "{input} {context}"
    stride: int = 64
    longest: int = 30
    window: int = 384

    name: ClassVar[str] = "extract"
    metric: ClassVar[str] = "f1"
    columns: ClassVar[Columns] = Columns(
        ("question", "query", "input"), ("answers", "answer", "target"), values.text, values.answers
    )

    def __post_init__(self) -> None:
        for option in ("stride", "longest", "window"):
            if getattr(self, option) < 1:
                raise GraftuneError(f"{option} is too small", received=getattr(self, option), expected="1 or more")

    def auto_class(self, config: Any) -> str:
        return "AutoModelForQuestionAnswering"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Raises GraftuneError for a base that has a language model's head, or none."""
        return labels.heads(base, self.auto_class(base.config))

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """Rows without a text, or whose text does not hold any of their answers."""
        wrong: dict[int, str] = {}
        for row in rows:
            text = row.columns.get(self.context)
            if text is None:
                raise unknown("column", self.context, row.columns)
            if row.target and not any(answer in text for answer in row.target):
                wrong[row.line] = f"{self.context!r} does not hold the answer {row.target[0]!r}"
        return wrong

    @property
    def good_row(self) -> str:
        return f"a text in {self.context!r} that holds the answer, letter by letter"

    def blank(self, input: Any) -> Any:
        return ("",)

    def encode(self, row: Row, reading: Reading) -> Window:
        """The first window that holds the answer, or the first of all."""
        windows = self.parts(row, reading)
        return next((w for w in windows if w.labels != (0, 0)), windows[0])

    def parts(self, row: Row, reading: Reading) -> Sequence[Window]:
        """Windows over the text; labels are the positions (start, end) of the answer, (0, 0) where it is not in."""
        reading = replace(reading, max_length=min(self.window, reading.max_length or self.window))
        text = row.columns[self.context]
        told = reading.processor(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces, offsets = list(told["input_ids"]), [(int(a), int(b)) for a, b in told["offset_mapping"]]
        room = self._room(row, reading)
        answer = _found(row.target, text)
        windows = []
        for first in _starts(len(pieces), room, self.stride):
            own = pieces[first : first + room]
            values = {self.context: own}
            prompt = reading.fit(row, values=values)
            start, count = prompt.places[self.context]
            spans = tuple(offsets[first : first + count])
            windows.append(
                Window(prompt.ids, _positions(answer, spans, start), len(pieces) > room, start=start, offsets=spans)
            )
        return windows

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, int64 (rows, 2).

        `spans` (rows, 2) has the first position of each window's text and the one behind its last.
        """
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = torch.tensor([item.labels for item in features])
        spans = [(w.start, w.start + len(w.offsets)) for w in features if isinstance(w, Window)]
        batch["spans"] = torch.tensor(spans)
        return batch

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in batch.items() if name not in ("labels", "spans")}

    def targets(self, batch: dict[str, Any]) -> int:
        """As many as windows."""
        return len(batch["labels"])

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean over windows of half the cross-entropy of the start and half that of the end."""
        start, end = batch["labels"].unbind(-1)
        return 0.5 * (
            cross_entropy(outputs.start_logits.float(), start, label_smoothing=smoothing)
            + cross_entropy(outputs.end_logits.float(), end, label_smoothing=smoothing)
        )

    def read(self, outputs: Any, batch: dict[str, Any]) -> list[tuple[float, int, int, float]]:
        """The best span of each window (its score, first and last piece), and the window's loss."""
        start, end = outputs.start_logits.float(), outputs.end_logits.float()
        sides = zip((start, end), batch["labels"].unbind(-1), strict=True)
        losses = [-scores.log_softmax(-1).gather(-1, wanted[:, None])[:, 0] for scores, wanted in sides]
        spans = [
            _best(s[a:b], e[a:b], self.longest)
            for s, e, (a, b) in zip(start, end, batch["spans"].tolist(), strict=True)
        ]
        return [(*span, loss) for span, loss in zip(spans, (sum(losses) / 2).tolist(), strict=True)]

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """Exact match and F1 of words as SQuAD has them, 0 to 100, and the mean loss over windows."""
        answers = []
        for row, windows, spans in zip(rows, parts, found, strict=True):
            (_, first, last, _), window = max(zip(spans, windows, strict=True), key=lambda pair: pair[0][0])
            assert isinstance(window, Window)
            span = slice(window.offsets[first][0], window.offsets[last][1])
            answers.append(row.columns[self.context][span].strip())  # some pieces begin with their space
        scores, notes = metrics.spans(answers, [row.target for row in rows])
        predictions = [
            {"line": row.line, "input": row.input, "prediction": answer, "references": list(row.target)}
            for row, answer in zip(rows, answers, strict=True)
        ]
        losses = [span[-1] for spans in found for span in spans]
        long = sum(len(own) > 1 for own in parts)
        notes["windows"] = f"{long} of {len(rows)} texts read in more than one window, {len(losses)} windows in all"
        return Evaluation(scores | {"loss": sum(losses) / len(losses)}, predictions, notes)

    def _room(self, row: Row, reading: Reading) -> int:
        """How many pieces of the text fit beside all the rest of the template."""
        rest = replace(reading, max_length=None).fit(row, values={self.context: []})
        room = (reading.max_length or 0) - len(rest.ids)
        if room <= self.stride:
            raise GraftuneError(
                f"line {row.line}: the question leaves no room for windows over the text",
                received=f"{room} pieces of the text at a time, a stride of {self.stride}",
                expected="windows longer than the stride",
                do="raise extract.window, lower extract.stride, or delete the row",
            )
        return room


def _starts(pieces: int, room: int, stride: int) -> Iterator[int]:
    """First pieces of windows of `room` pieces that overlap by `stride` and together see all."""
    first = 0
    while True:
        yield first
        if first + room >= pieces:
            return
        first += room - stride


def _found(answers: Sequence[str], text: str) -> tuple[int, int] | None:
    """The characters of the first answer that stands in the text, as whole words where it does."""
    for answer in answers:
        whole = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text)
        at = whole.start() if whole else text.find(answer)
        if at >= 0:
            return at, at + len(answer)
    return None


def _positions(answer: tuple[int, int] | None, offsets: Sequence[tuple[int, int]], start: int) -> tuple[int, int]:
    """The positions of the pieces that an answer begins and ends in; (0, 0) where the window does not hold it."""
    if answer is None:
        return 0, 0
    inside = [i for i, (a, b) in enumerate(offsets) if a < answer[1] and b > answer[0]]
    if not inside or offsets[inside[0]][0] > answer[0] or offsets[inside[-1]][1] < answer[1]:
        return 0, 0
    return start + inside[0], start + inside[-1]


def _best(start: Tensor, end: Tensor, longest: int) -> tuple[float, int, int]:
    """The best sum of start and end logits (n,) with start ≤ end < start + longest, and where."""
    sums = start[:, None] + end[None, :]  # (n, n)
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(longest - 1)
    best = sums.masked_fill(~allowed, -torch.inf).flatten().argmax()
    first, last = divmod(int(best), len(end))
    return float(sums[first, last]), first, last
