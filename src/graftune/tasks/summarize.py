"""Summarization, by an encoder-decoder or a causal language model; scored by ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftune.datasets.columns import Columns
from graftune.tasks import metrics
from graftune.tasks.generate import Generate


@dataclass(frozen=True)
class Summarize(Generate):
    """As Generate, with the scores that summaries are compared by: ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum."""

    max_new_tokens: int = 128

    name: ClassVar[str] = "summarize"
    metric: ClassVar[str] = "rougeL"
    columns: ClassVar[Columns] = Columns(
        ("document", "article", "text", "dialogue", "source", "input"),
        ("summary", "highlights", "target", "output", "abstract", "title"),
    )

    @property
    def instruction(self) -> str:
        return "Summarize this."

    def scores(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> metrics.Scores:
        return metrics.summaries(texts, references)
