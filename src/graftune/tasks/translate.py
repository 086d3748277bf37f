"""Translation, by an encoder-decoder or a causal language model; scored as WMT does."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.tasks import metrics
from graftune.tasks.generate import Generate

BY_CHARACTER = {"CJK": "zh", "HIRAGANA": "char", "KATAKANA": "char", "HANGUL": "char", "THAI": "char"}


@dataclass(frozen=True)
class Translate(Generate):
    """As Generate. `tokenize` "auto" takes sacrebleu's tokenizer by the script of the training targets.

    Chinese has its own, Japanese, Korean and Thai are scored by character (they need no dictionary then), all others
    as "13a". The note of a result has sacrebleu's signature.
    """

    tokenize: str = "auto"

    name: ClassVar[str] = "translate"
    columns: ClassVar[Columns] = Columns(
        ("source", "src", "input", "text", "en"), ("target", "tgt", "translation", "output", "zh", "de", "fr", "es")
    )

    @property
    def instruction(self) -> str:
        return "Translate this."

    def fit(self, rows: Sequence[Row]) -> Self:
        """`tokenize`: by the script that most letters of the targets belong to."""
        if self.tokenize != "auto":
            return self
        letters = Counter(_script(c) for row in rows[:1000] for c in row.target if c.isalpha())
        script = letters.most_common(1)[0][0] if letters else ""
        return replace(self, tokenize=BY_CHARACTER.get(script, "13a"))

    def scores(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> metrics.Scores:
        return metrics.generation(texts, references, "13a" if self.tokenize == "auto" else self.tokenize)


def _script(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]
