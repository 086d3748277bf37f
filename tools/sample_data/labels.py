"""The embedded classification set: the same texts about boats, and whether one can eat or drink on board."""

from __future__ import annotations

from sample_data import boats
from sample_data.splits import Split, table_to_text

DRINKS = ("hot tea", "black coffee", "red wine", "ginger beer")


def label(record: boats.Record) -> str:
    """What is served: "drink", "food" or "nothing"."""
    if "serves" not in record:
        return "nothing"
    return "drink" if record["serves"] in DRINKS else "food"


def text_to_label(split: Split, rows: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """The rows of a split, as of table_to_text: a ``text`` that says facts about a boat, and its ``label``."""
    return [
        {"text": row["text"], "label": label(boats.parse(row["table"]))} for row in table_to_text(split, rows, seed)
    ]
