"""The two splits of the embedded table-to-text set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal, get_args

from graftune.errors import GraftuneError, unknown
from sample_data import boats, sentences

Split = Literal["train", "dev"]
ROWS: Final[dict[str, int]] = {"train": 2000, "dev": 180}
REFERENCES: Final = 3  # wordings of each dev table
UNSEEN_NAMES: Final = 0.4  # share of dev tables about a boat whose name training never shows
# Far below the number of distinct training tables, so that drawing new ones stays fast.
MOST_ROWS: Final = 200_000


def table_to_text(split: Split, rows: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """The rows of a split: a ``table`` of facts about a boat and a ``text`` that says exactly these facts.

    Every training row has a table of its own. A dev table comes with three wordings, as three consecutive
    rows, and never occurs in training, whatever the seeds and sizes. The rows depend on nothing but the
    arguments, and fewer rows are the beginning of more.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    wanted = ROWS[split] if rows is None else rows
    if not 0 <= wanted <= MOST_ROWS:
        raise GraftuneError("unusable number of rows", received=wanted, expected=f"0 to {MOST_ROWS}")
    return list(islice(_stream(split, random.Random(f"graftune boats {split} {seed}")), wanted))


def _stream(split: Split, rng: random.Random) -> Iterator[dict[str, str]]:
    """Endless rows of a split, with no table twice."""
    seen: set[str] = set()
    while True:
        # Decided before the draw: a rule on the draw itself would let the names decide the share.
        unseen_name = split == "dev" and rng.random() < UNSEEN_NAMES
        record = boats.draw(rng)
        while not _fits(record, split, unseen_name) or boats.table(record) in seen:
            record = boats.draw(rng)
        table = boats.table(record)
        seen.add(table)
        for text in _wordings(record, rng, REFERENCES if split == "dev" else 1):
            yield {"table": table, "text": text}


def _fits(record: boats.Record, split: Split, unseen_name: bool) -> bool:
    """Whether the record belongs to the split and, for dev, has the kind of name asked for."""
    if boats.belongs_to_dev(record) != (split == "dev"):
        return False
    return split == "train" or boats.name_is_unseen(record["name"]) == unseen_name


def _wordings(record: boats.Record, rng: random.Random, count: int) -> list[str]:
    """As many different texts of the record; every record has more wordings than are ever asked for."""
    texts: list[str] = []
    while len(texts) < count:
        text = sentences.text(record, rng)
        if text not in texts:
            texts.append(text)
    return texts
