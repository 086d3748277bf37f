"""The grammar: one or two plain sentences that say exactly what a record says.

A template is a string with ``{slots}`` and ``[choices|between|words]``. A text is planned in three steps:
the facts that introduce the boat (its kind and its journey), how many of the other facts (price, seats, food)
join the first sentence, and the shape in which each of them is said: as a verb phrase (``takes two people``),
as a tail (``with room for two people``) or as a clause of its own (``there is room for two people``).
"""

from __future__ import annotations

import random
import re
from typing import Final

from sample_data.boats import DISHES, NUMBERS, Record, pick, shuffled

_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")

# The journey as a verb phrase, by the fields it has to say.
_JOURNEY: Final[dict[str, tuple[str, ...]]] = {
    "": ("",),
    "from": ("[leaves from|sets out from|sails from|starts at] {from}",),
    "to": ("[goes|sails|runs|travels] to {to}", "takes you to {to}"),
    "leaves": ("[leaves|sets out|sails|departs] at {leaves}",),
    "from to": (
        "[goes|sails|runs|travels] from {from} to {to}",
        "[leaves|departs] {from} for {to}",
        "takes you from {from} to {to}",
    ),
    "from leaves": (
        "[leaves|departs] {from} at {leaves}",
        "[sets out|sails] from {from} at {leaves}",
        "[leaves|departs] at {leaves} from {from}",
    ),
    "to leaves": (
        "[leaves|sets out|sails] for {to} at {leaves}",
        "[goes|sails|runs] to {to} at {leaves}",
        "[leaves|departs] at {leaves} for {to}",
    ),
    "from to leaves": (
        "[leaves|departs] {from} for {to} at {leaves}",
        "[goes|sails|runs|travels] from {from} to {to} at {leaves}",
        "[leaves|departs] {from} at {leaves} and [goes|sails] to {to}",
        "[goes|sails|runs|travels] from {from} to {to}, [leaving|setting out] at {leaves}",
    ),
}

_PHRASE: Final[dict[str, tuple[str, ...]]] = {
    "price": ("costs {price}", "charges {price}", "asks {price} for the trip"),
    "free": ("is free", "is free of charge"),
    "seats": ("[carries|holds|takes] {people}", "has {seating} for {people}"),
    "serves": ("[serves|offers] {serves}", "[serves|offers] {serves} on board"),
}
_TAIL: Final[dict[str, tuple[str, ...]]] = {
    "price": ("for {price}", "at a [fare|price] of {price}"),
    "free": ("free of charge",),
    "seats": ("with {seating} for {people}",),
    "serves": ("with {serves} on board",),
}
_CLAUSE: Final[dict[str, tuple[str, ...]]] = {
    "price": ("[a ticket costs|the ticket costs|the fare is|the price is|you pay] {price}",),
    "free": ("the [trip|journey] is free", "the [trip|journey] is free of charge"),
    "seats": ("there is [room|space] for {people}", "there is [room|space] for {people} on board"),
    "serves": ("{serves} {verb} served", "{serves} {verb} served on board", "you can have {serves} on board"),
}


def promised(field: str, value: str) -> tuple[str, ...]:
    """The forms of which one appears in every text about a record with this field and value."""
    if field != "seats":
        return (value,)
    nouns = ("passenger", "person", "guest") if value == "1" else ("passengers", "people", "guests")
    return tuple(f"{NUMBERS[value]} {noun}" for noun in nouns)


def article(noun: str) -> str:
    """The noun with ``a`` or ``an``; the vocabulary has no word whose first letter misleads."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def text(record: Record, rng: random.Random) -> str:
    """One random wording of the record."""
    said = _Wording(record, rng)
    extras: list[str] = shuffled(rng, [field for field in ("price", "seats", "serves") if field in record])
    sentences = said.introduced(extras) if said.has_introduction else said.extras_only(extras)
    return _once(" ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences))


class _Wording:
    """The choices made while one text is written."""

    def __init__(self, record: Record, rng: random.Random) -> None:
        self.record, self.rng = record, rng
        self.slots = dict(record, boat=f"the {record['name']}")
        if "type" in record:
            self.slots["kind"] = article(record["type"])
        if "seats" in record:
            self.slots["people"] = pick(rng, promised("seats", record["seats"]))
            seat = "a seat" if record["seats"] == "1" else "seats"
            self.slots["seating"] = pick(rng, ("room", "space", seat))
        if "serves" in record:
            self.slots["verb"] = DISHES[record["serves"]]
        self.has_introduction = any(field in record for field in ("type", "from", "to", "leaves"))

    def say(self, *templates: str) -> str:
        """One of the templates with its choices made and its slots filled."""
        made = _CHOICE.sub(lambda found: pick(self.rng, found[1].split("|")), pick(self.rng, templates))
        return made.format_map(self.slots)

    def shape(self, shapes: dict[str, tuple[str, ...]], field: str) -> str:
        """The field in one of the shapes; a price of ``free`` is worded in its own way."""
        return self.say(*shapes["free" if self.record[field] == "free" else field])

    def journey(self, *left_out: str) -> str:
        """The verb phrase of the journey, empty if the record has none."""
        fields = [f for f in ("from", "to", "leaves") if f in self.record and f not in left_out]
        return self.say(*_JOURNEY[" ".join(fields)])

    def introduced(self, extras: list[str]) -> list[str]:
        """An opening sentence, which takes up to one extra, and a second one for the others."""
        journey = self.journey()
        if journey and self.rng.random() < 0.25 and "type" in self.record and extras:
            # The kind first with one extra, the journey in the second sentence with the others.
            first = self.opening_by_kind(extras[0])
            more = [self.shape(_CLAUSE, field) for field in extras[1:]]
            return [first, _clauses([f"{self.it()} {journey}", *more])]
        if not journey:
            return [self.opening_by_kind(extras[0]), *self.closing(extras[1:])]
        opening = self.opening(journey)
        joined = 1 if extras and self.rng.random() < (0.8 if len(extras) == 1 else 0.45) else 0
        if joined:
            opening = self.with_extra(opening, extras[0])
        return [opening, *self.closing(extras[joined:])]

    def opening(self, journey: str) -> str:
        """The boat, its kind if known, and its journey."""
        timed = "leaves" in self.record and ("from" in self.record or "to" in self.record)
        plans = ["{boat}, {kind}, ", "{kind} called {boat} ", "the {type} {name} ", "{boat} is {kind} that "]
        who = self.say(*plans) if "type" in self.record else self.say("{boat} ", "the boat called {boat} ")
        if timed and not who.endswith("that ") and self.rng.random() < 0.3:
            return self.say("at {leaves}, ") + who + self.journey("leaves")
        return who + journey

    def opening_by_kind(self, extra: str) -> str:
        """The boat and its kind, with one extra."""
        phrase, tail = self.shape(_PHRASE, extra), self.shape(_TAIL, extra)
        starts = ("{boat} is {kind} that ", "the {type} {name} ", "{boat}, {kind}, ")
        plans = [start + phrase for start in starts]
        if extra != "price":
            plans.append("{boat} is {kind} " + tail)
        return self.say(*plans)

    def with_extra(self, opening: str, field: str) -> str:
        """The opening with one more fact in the same sentence."""
        if self.rng.random() < 0.5:
            return f"{opening}, and {self.shape(_CLAUSE, field)}"
        return f"{opening}{', ' if ',' in opening or field == 'serves' else ' '}{self.shape(_TAIL, field)}"

    def closing(self, extras: list[str]) -> list[str]:
        """The remaining extras as a sentence of their own; none, if none remain."""
        if not extras:
            return []
        if self.rng.random() < 0.5:
            return [f"{self.it()} " + _phrases([self.shape(_PHRASE, field) for field in extras])]
        return [_clauses([self.shape(_CLAUSE, field) for field in extras])]

    def extras_only(self, extras: list[str]) -> list[str]:
        """A boat of which neither kind nor journey is known."""
        if self.rng.random() < 0.3:
            clauses = [self.shape(_CLAUSE, field) for field in extras]
            return [self.say("on board {boat}, ") + _clauses(clauses)]
        first = self.say("{boat} ", "the boat called {boat} ") + self.shape(_PHRASE, extras[0])
        if self.rng.random() < 0.5:
            return [first, *self.closing(extras[1:])]
        return [_phrases([first, *(self.shape(_PHRASE, field) for field in extras[1:])])]

    def it(self) -> str:
        """The boat, once it has been named."""
        return self.say("it", "it", "the boat")


def _phrases(parts: list[str]) -> str:
    """``serves tea``; ``is free and serves tea``; ``is free, takes two people and serves tea``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def _clauses(parts: list[str]) -> str:
    """The same for parts with subjects of their own, which take a comma before ``and``."""
    return ", and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)


def _once(text: str) -> str:
    """The text with ``on board`` only where it is said first."""
    head, said, rest = text.partition("n board")
    return head + said + rest.replace(" on board", "")
