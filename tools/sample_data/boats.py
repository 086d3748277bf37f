"""The records of the embedded set: boats of an invented coast, each a table of three to six fields.

A record always has a name and two to five of the other seven fields. Which records belong to the dev split
is a property of the record itself (a digest of its words), so no choice of seed or size can let a dev table
into the training rows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")
Record = dict[str, str]

FIELDS: Final = ("name", "type", "from", "to", "leaves", "price", "seats", "serves")

_FIRST: Final = (
    "Blue", "Brave", "Bright", "Early", "Fair", "Gentle", "Golden", "Good",
    "Green", "Grey", "Happy", "Honest", "Little", "Lonely", "Lucky", "Merry",
    "Old", "Proud", "Quiet", "Red", "Silver", "Sweet", "White", "Young",
)  # fmt: skip
_SECOND: Final = (
    "Anchor", "Captain", "Daisy", "Duchess", "Eagle", "Fisher", "Hare", "Hawk",
    "Heron", "Hope", "Lady", "Lark", "Lily", "Maid", "Morning", "Otter",
    "Prince", "Queen", "Robin", "Rose", "Sailor", "Star", "Swan", "Widow",
)  # fmt: skip

KINDS: Final = (
    "ferry", "steamer", "barge", "sailing ship", "fishing boat", "rowing boat", "river boat",
    "old steamer", "open boat", "iron ship", "mail boat", "small yacht",
)  # fmt: skip
PLACES: Final = (
    "Stone Quay", "Gull Island", "Ashwick", "Saltmouth", "Long Bridge", "Harrow Bay", "Mill Landing",
    "Elder Point", "Castle Rock", "Thornby", "Willow Bank", "Northmere", "Abbey Steps", "Fisher Row",
    "Oldhaven", "King's Harbour",
)  # fmt: skip
TIMES: Final = (
    "noon", "six o'clock", "seven o'clock", "eight o'clock", "nine o'clock", "ten o'clock",
    "half past six", "half past seven", "half past eight", "half past nine", "half past two",
    "three in the afternoon", "five in the morning", "a quarter past ten", "a quarter to four", "sunset",
)  # fmt: skip
PRICES: Final = (
    "free", "one penny", "sixpence", "nine pence", "one shilling", "two shillings", "three shillings",
    "four shillings", "five shillings", "half a crown", "one pound", "two pounds",
)  # fmt: skip
# Digits in the table, words in the text: the one field that has to be translated rather than copied.
NUMBERS: Final = {
    "1": "one", "2": "two", "4": "four", "6": "six", "8": "eight", "10": "ten", "12": "twelve",
    "15": "fifteen", "20": "twenty", "30": "thirty", "40": "forty", "60": "sixty", "100": "a hundred",
}  # fmt: skip
# Each dish with the verb it takes.
DISHES: Final = {
    "hot tea": "is", "black coffee": "is", "bread and cheese": "is", "fried fish": "is", "cold beef": "is",
    "onion soup": "is", "red wine": "is", "ginger beer": "is", "fresh oysters": "are", "apple pies": "are",
    "boiled eggs": "are", "sweet cakes": "are", "roast potatoes": "are",
}  # fmt: skip
_VALUES: Final[dict[str, Sequence[str]]] = {
    "type": KINDS, "from": PLACES, "to": PLACES, "leaves": TIMES,
    "price": PRICES, "seats": tuple(NUMBERS), "serves": tuple(DISHES),
}  # fmt: skip


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options. Only ``random()`` is promised to stay the same across Python versions."""
    return options[int(rng.random() * len(options))]


def shuffled(rng: random.Random, options: Sequence[T]) -> list[T]:
    """The options in random order, drawn with ``random()`` alone, for the same reason."""
    keyed = [(rng.random(), option) for option in options]
    return [option for _, option in sorted(keyed, key=lambda pair: pair[0])]


def table(record: Record) -> str:
    """The record as one line: ``name : Blue Heron | type : ferry | leaves : noon``."""
    return " | ".join(f"{field} : {record[field]}" for field in FIELDS if field in record)


def parse(line: str) -> Record:
    """The record of a table line."""
    return dict(cell.split(" : ", 1) for cell in line.split(" | "))


def _share(text: str, parts: int) -> bool:
    """True for one in ``parts`` of all strings, always the same ones."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % parts == 0


def name_is_unseen(name: str) -> bool:
    """True for the names that only dev records carry."""
    return _share(f"name {name}", 6)


def belongs_to_dev(record: Record) -> bool:
    """True for the records that training never contains."""
    return name_is_unseen(record["name"]) or _share(table(record), 12)


def draw(rng: random.Random) -> Record:
    """One random record, of either split."""
    record = {"name": f"{pick(rng, _FIRST)} {pick(rng, _SECOND)}"}
    chosen = shuffled(rng, FIELDS[1:])[: 2 + int(rng.random() * 4)]
    for field in FIELDS[1:]:
        if field in chosen:
            record[field] = pick(rng, [v for v in _VALUES[field] if v != record.get("from")])
    return record
