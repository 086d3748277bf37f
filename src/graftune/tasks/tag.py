"""Tagging: a label for every word, such as the names of entities in BIO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.tasks import labels, metrics
from graftune.tasks.batches import IGNORED, inputs, pad
from graftune.tasks.features import Features, Reading, truncation
from graftune.tasks.task import Evaluation, Task


@dataclass
class Tag(Task):
    """Input: a list of words; target: a list of as many tags. The first piece of each word carries its tag.

    Tags such as B-Disease and I-Disease are scored by entities (`seqeval`), others by words. Words beyond the maximum
    length are predicted as `O`, and counted.
    """

    pattern: str = "{input}"

    labels: tuple[str, ...] = field(default=(), init=False)

    name: ClassVar[str] = "tag"
    metric: ClassVar[str] = "f1"
    learned: ClassVar[tuple[str, ...]] = ("labels",)
    columns: ClassVar[Columns] = Columns(
        ("tokens", "words", "input", "text"), ("tags", "ner_tags", "labels", "target"), values.words, values.words
    )

    def auto_class(self, config: Any) -> str:
        return "AutoModelForTokenClassification"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Raises GraftuneError for a base that has a language model's head, or none."""
        return labels.heads(base, self.auto_class(base.config))

    def prepare(self, rows: Sequence[Row]) -> None:
        """The tags are all that occur in rows that have one for each word."""
        self.labels = labels.found(tag for row in rows if len(row.target) == len(row.input) for tag in row.target)

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """Rows with another number of tags than of words, or an unknown tag."""
        known = self.known()
        wrong: dict[int, str] = {}
        for row in rows:
            if len(row.target) != len(row.input):
                wrong[row.line] = f"{len(row.input)} words and {len(row.target)} tags"
            elif strange := [tag for tag in row.target if tag not in known]:
                wrong[row.line] = labels.unknown(strange[0], known)
        return wrong

    @property
    def good_row(self) -> str:
        return "a tag that the training rows have for every word"

    def blank(self, input: Any) -> Any:
        return tuple(self.known()[0] for _ in input)

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        return labels.arguments(self.known())

    def encode(self, row: Row, reading: Reading) -> Features:
        """ids = the filled template, the words' pieces in it; labels: a tag's number on each word's first piece."""
        self._need_pieces(reading.processor)
        pieces = reading.processor(list(row.input), is_split_into_words=True, add_special_tokens=False, verbose=False)
        prompt = reading.fit(row, values={"input": list(pieces["input_ids"])})
        start, count = prompt.places["input"]
        known = self.known()
        targets = [IGNORED] * len(prompt.ids)
        before = None
        for place, word in enumerate(pieces.word_ids()[:count]):
            if word is not None and word != before:
                targets[start + place] = known.index(row.target[word])
            before = word
        return Features(prompt.ids, targets, prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, int64 (rows, longest or `width`), padded on the right."""
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = pad([item.labels for item in features], IGNORED, width=width)
        return batch

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy over words."""
        chosen = batch["labels"] != IGNORED
        return cross_entropy(outputs.logits[chosen].float(), batch["labels"][chosen], label_smoothing=smoothing)

    def read(self, outputs: Any, batch: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
        """The likeliest tag and the loss of every word."""
        found = []
        for own, wanted in zip(outputs.logits.float().log_softmax(-1), batch["labels"], strict=True):
            chosen = wanted != IGNORED
            losses = -own[chosen].gather(-1, wanted[chosen, None])
            found.append((own[chosen].argmax(-1).tolist(), losses.flatten().tolist()))
        return found

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """Precision, recall and F1 of entities, accuracy of words, mean loss over words."""
        known = self.known()
        rest = "O" if "O" in known else known[0]
        guesses = [
            [known[i] for i in guess] + [rest] * (len(row.input) - len(guess))
            for row, ((guess, _),) in zip(rows, found, strict=True)
        ]
        scores, notes = metrics.tags(guesses, [list(row.target) for row in rows])
        losses = [loss for ((_, own),) in found for loss in own]
        predictions = [
            {
                "line": row.line,
                "input": self.shown(row),
                "target": metrics.marked(row.input, row.target),
                "prediction": metrics.marked(row.input, guess),
                "tags": guess,
            }
            for row, guess in zip(rows, guesses, strict=True)
        ]
        notes["truncated"] = truncation(parts)
        return Evaluation(scores | {"loss": sum(losses) / len(losses)}, predictions, notes)

    def shown(self, row: Row) -> str:
        return " ".join(row.input)

    def known(self) -> tuple[str, ...]:
        """The tags. Raises GraftuneError before `prepare`."""
        return labels.known(self.labels, type(self).__name__)

    def _need_pieces(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise GraftuneError(
                "tagging needs to know which pieces belong to which word",
                received=f"{type(tokenizer).__name__}, a tokenizer that does not tell",
                expected="a fast tokenizer (tokenizer.json)",
                do="save the base with its fast tokenizer",
            )
