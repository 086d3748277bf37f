"""Features: what a row becomes before it is batched, and the encoder that fits a row into the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.templates.template import Encoded, NoRoom, Template, Value


class TooLong(GraftuneError):
    """A row that does not fit the maximum length."""


@dataclass(frozen=True)
class Features:
    """One encoded row: its ids, what it is trained on (a label an id, -100 = none; or what the task has instead).

    `truncated` says whether input was cut.
    """

    ids: list[int]
    labels: Any
    truncated: bool = False
    type_ids: list[int] | None = None
    """Which of two joined texts each id belongs to, 0 or 1, for bases that are told."""

    @property
    def length(self) -> int:
        """How many positions of the base it takes."""
        return len(self.ids)


@dataclass(frozen=True)
class PromptEncoder:
    """Turns rows into token ids: by which tokenizer or image processor, through which template, within how many tokens.

    ``first_virtual_id`` is the id of the first virtual token; ``target_length`` limits what a decoder writes where it
    has positions of its own.
    """

    processor: Any
    template: Template = field(default_factory=Template)
    first_virtual_id: int = 0
    max_length: int | None = None
    target_length: int | None = None

    def fit(
        self, row: Row, *, reserved: int = 0, suffix: bool = True, values: Mapping[str, Value] | None = None
    ) -> Encoded:
        """The template filled with the row's columns, or ``values`` over them, with room for ``reserved`` tokens.

        Raises TooLong, naming the row's line, when even a single token of a column does not fit.
        """
        limit = None if self.max_length is None else self.max_length - reserved
        columns = {**row.texts, **(values or {})}
        try:
            return self.template.encode(self.processor, columns, self.first_virtual_id, limit, suffix=suffix)
        except NoRoom as error:
            raise TooLong(
                f"line {row.line}: the sequence is too long",
                received=f"{reserved} tokens after the template, and a template that fits no input in the rest",
                expected=f"at most {self.max_length} tokens, at least one of them the input's",
                do="raise the maximum length, shorten the template, or delete the row",
            ) from error

    def check(self, line: int, ids: Sequence[int], targets: Sequence[int] = ()) -> None:
        """Raise GraftuneError for tokens that the base's embedding has no row for: they are no virtual tokens."""
        first = self.first_virtual_id
        if not first or max((*ids, *targets), default=0) < first:
            return
        beyond = [token for token in ids if token >= first]
        if len(beyond) > self.template.virtual_tokens or any(token >= first for token in targets):
            raise GraftuneError(
                "the tokenizer has more tokens than the base's embedding has rows",
                received=f"ids {first} to {max((*ids, *targets))} in line {line}, "
                f"and {self.template.virtual_tokens} virtual tokens in the template",
                expected=f"ids from 0 to {first - 1}",
                do="resize the embedding, and save the base again: base.resize_token_embeddings(len(tokenizer))",
            )

    def fit_many(self, rows: Sequence[Row], *, reserved: Sequence[int] = (), suffix: bool = True) -> list[Encoded]:
        """As `fit` for each row, with room for ``reserved[i]`` tokens; the tokenizer reads all rows at once."""
        columns = [row.texts for row in rows]
        whole = self.template.encode_many(self.processor, columns, self.first_virtual_id, suffix=suffix)
        found = []
        for row, encoded, more in zip(rows, whole, reserved or [0] * len(rows), strict=True):
            fits = self.max_length is None or len(encoded.ids) + more <= self.max_length
            found.append(encoded if fits else self.fit(row, reserved=more, suffix=suffix))
        return found


def truncation(features: Sequence[Sequence[Features | Encoded]]) -> str:
    """The note that says how many inputs were cut."""
    count = sum(any(part.truncated for part in parts) for parts in features)
    return f"{count} of {len(features)} inputs cut to fit the maximum length"
