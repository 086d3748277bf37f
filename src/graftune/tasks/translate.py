"""Translation, by an encoder-decoder or a causal language model; scored as WMT does."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.tasks.generate import Generate


@dataclass
class Translate(Generate):
    """As Generate. `tokenize` "auto" takes sacrebleu's tokenizer by the script of the training targets.

    Chinese has its own, Japanese, Korean and Thai are scored by character (they need no dictionary then), all others
    as "13a". The note of a result has sacrebleu's signature.
    """

    tokenize: str = "auto"

    script: str = field(default="", init=False)

    name: ClassVar[str] = "translate"
    learned: ClassVar[tuple[str, ...]] = ("script",)
    columns: ClassVar[Columns] = Columns(
        ("source", "src", "input", "text", "en"), ("target", "tgt", "translation", "output", "zh", "de", "fr", "es")
    )

    @property
    def instruction(self) -> str:
        return "Translate this."

    def prepare(self, rows: Sequence[Row]) -> None:
        """The script that most letters of the targets belong to."""
        letters = Counter(_script(c) for row in rows[:1000] for c in row.target if c.isalpha())
        self.script = letters.most_common(1)[0][0] if letters else ""

    @property
    def tokenizer(self) -> str:
        """sacrebleu's name of the tokenizer."""
        if self.tokenize != "auto":
            return self.tokenize
        return {"CJK": "zh", "HIRAGANA": "char", "KATAKANA": "char", "HANGUL": "char", "THAI": "char"}.get(
            self.script, "13a"
        )


def _script(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]
