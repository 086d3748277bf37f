"""Filling: from a template's segments and the values of rows to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graftune.errors import GraftuneError
from graftune.templates.frames import Frame, frame, joins_pairs
from graftune.templates.segments import Column, Ids, Mask, Segment, Separator, Virtual, Words
from graftune.templates.tokens import Reader, reader

Value = str | Sequence[int]
#: Text that is tokenised as one string, with marks for the special tokens that the template means; or what is no text.
Part = str | Ids | Virtual | Separator


class NoRoom(GraftuneError):
    """A template whose words and virtual tokens alone exceed the maximum length."""


class Encoded(NamedTuple):
    """Token ids, and whether tokens of a column had to be left out.

    `places` has the first position and the number of kept tokens of each column that was given as ids. `type_ids` has
    a token type for each id; None where the tokenizer knows no token types.
    """

    ids: list[int]
    truncated: bool
    places: dict[str, tuple[int, int]]
    type_ids: list[int] | None = None


def shared(room: int, sizes: Sequence[int]) -> list[int]:
    """How many tokens of each column are kept: of the longest the most are left out, until all fit."""
    kept = list(sizes)
    order = sorted(range(len(kept)), key=lambda i: kept[i])
    for place, index in enumerate(order):
        kept[index] = min(kept[index], room // (len(order) - place))
        room -= kept[index]
    return kept


@dataclass(frozen=True)
class Filling:
    """A template over a tokenizer.

    `suffix`: with the special tokens behind the text. Raises GraftuneError for a `{mask}` without a token for it.
    """

    segments: Sequence[Segment]
    tokenizer: Any
    first_virtual_id: int
    max_length: int | None
    suffix: bool

    def __post_init__(self) -> None:
        if Mask() in self.segments and getattr(self.tokenizer, "mask_token", None) is None:
            raise GraftuneError(
                "the tokenizer has no token for {mask}",
                received=type(self.tokenizer).__name__,
                expected="the tokenizer of a masked language model",
                do="leave {mask} out, or choose an encoder as the base",
            )

    def encoded(self, rows: Sequence[Mapping[str, Value]]) -> list[Encoded]:
        """Every row's ids. The texts of all rows are tokenised at once, and those of too long ones once more.

        Raises NoRoom where not every column has room for one token.
        """
        found = self._assembled(rows)
        if self.max_length is None:
            return found
        long = [index for index, item in enumerate(found) if len(item.ids) > self.max_length]
        if not long:
            return found
        # Only columns that are tokenised by themselves have tokens of their own that can be left out.
        apart = self._apart([rows[index] for index in long])
        kept = [self._shortened(row) for row in apart]
        for index, item, row, less in zip(long, self._assembled(kept), apart, kept, strict=True):
            shorter = any(len(less[name]) < len(row[name]) for name in row)
            places = {name: place for name, place in item.places.items() if not isinstance(rows[index][name], str)}
            found[index] = item._replace(truncated=shorter, places=places)
        return found

    @property
    def columns(self) -> list[str]:
        return [segment.name for segment in self.segments if isinstance(segment, Column)]

    def _assembled(self, rows: Sequence[Mapping[str, Value]]) -> list[Encoded]:
        read = reader(self.tokenizer)
        pair = Separator() in self.segments and joins_pairs(self.tokenizer)
        around = frame(self.tokenizer, "pair" if pair else "text")
        parts = [_joined(self._parts(row, read, pair)) for row in rows]
        texts = iter(read.ids([part for own in parts for part in own if isinstance(part, str)]))
        return [self._row(own, texts, around) for own in parts]

    def _parts(self, values: Mapping[str, Value], read: Reader, pair: bool) -> Iterator[Part]:
        for segment in self.segments:
            if isinstance(segment, Words):
                yield read.marked(segment.text)
            elif isinstance(segment, Mask):
                # As text, so that the space before it is treated as the tokenizer does.
                yield read.marked(str(self.tokenizer.mask_token))
            elif isinstance(segment, Column):
                value = values[segment.name]
                yield value if isinstance(value, str) else Ids(value, segment.name)
            elif isinstance(segment, Separator) and not pair:
                yield "\n"
            else:
                yield segment

    def _row(self, parts: Sequence[Part], texts: Iterator[list[int]], around: Frame) -> Encoded:
        """The parts one after another between the special tokens; each text is the next of `texts`."""
        opening, side, middle, second, closing = around.types or ((), 0, (), 0, ())
        ids, types = list(around.opening), list(opening)
        places: dict[str, tuple[int, int]] = {}
        virtual = self.first_virtual_id
        for part in parts:
            if isinstance(part, Separator):
                ids += around.middle
                types += middle
                side = second
                continue
            if isinstance(part, str):
                ids += next(texts)
            elif isinstance(part, Ids):
                places[part.name] = len(ids), len(part.ids)
                ids += part.ids
            else:
                ids += range(virtual, virtual + part.count)
                virtual += part.count
            types += [side] * (len(ids) - len(types))
        if self.suffix:
            ids += around.closing
            types += closing
        return Encoded(ids, False, places, types if around.types else None)

    def _apart(self, rows: Sequence[Mapping[str, Value]]) -> list[dict[str, Sequence[int]]]:
        """The rows' columns, each tokenised by itself."""
        texts = [value for row in rows for name in self.columns if isinstance(value := row[name], str)]
        found = iter(reader(self.tokenizer).ids(texts))
        return [
            {name: next(found) if isinstance(row[name], str) else row[name] for name in self.columns}  # type: ignore[misc]
            for row in rows
        ]

    def _shortened(self, row: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
        """The columns' first tokens, as many as fit."""
        taken = len(self._assembled([dict.fromkeys(row, ())])[0].ids)
        room = (self.max_length or 0) - taken
        if room < len(row):
            raise NoRoom(
                "the template leaves no room for the input",
                received=f"a limit of {self.max_length} tokens; {taken} others stand in it",
                expected="at least one token of the input within the limit",
                do="raise the maximum length, or shorten the template",
            )
        sizes = shared(room, [len(ids) for ids in row.values()])
        return {name: ids[:size] for (name, ids), size in zip(row.items(), sizes, strict=True)}


def _joined(parts: Iterable[Part]) -> list[Part]:
    """The same parts with neighbouring texts made one."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found
