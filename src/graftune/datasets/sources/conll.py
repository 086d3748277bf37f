"""CoNLL columns: a word and its tag a line, an empty line after every sentence."""

from __future__ import annotations

import re
from pathlib import Path

from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.sources.text import whole

DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O|[BIESLUM]-\S+")
CONLL_U = ("tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")  # behind the counter
JOINED = re.compile(r"\d+[-.]\d+\t(?:[^\t]*\t){8}[^\t]*$")  # a word of several, or one that is not written
LOOKED_AT = 200  # lines that tell whether a text has columns


def read(path: Path, shown: str) -> Records:
    """Sentences as columns `tokens` (the first field of each line) and `tags` (the last), by their first lines.

    Where the first field counts the words of each sentence, the word is the second. Fields between them are `field 2`,
    `field 3`, …; CoNLL-U's ten have names of their own. Document marks, comments (a line that starts with # and does
    not end on a tag of other lines), and CoNLL-U's joined and empty words (2-3, 4.1) are left out.
    """
    lines = whole(path, shown).split("\n")
    words = [found for line in lines if not _aside(line) and (found := fields(line))]
    width = len(words[0]) if words else 0
    known = {found[-1] for found in words}
    records: list[Record] = []
    problems: dict[int, str] = {}
    sentence: list[list[str]] = []
    columns = _columns(width, counted=width > 2 and _counted(lines))
    start, wrong = 0, False
    for number, line in enumerate([*lines, ""], 1):
        found = fields(line)
        if not found:
            if sentence and not wrong:
                records.append(Record(start, {name: [one[at] for one in sentence] for at, name in columns.items()}))
            sentence, wrong = [], False
        elif found[0] == DOCUMENT or JOINED.match(line) or (line.startswith("#") and found[-1] not in known):
            continue
        elif len(found) != width or width < 2:
            expected = f"the first line has {width}" if width > 1 else "a word and its tag were expected"
            problems[number] = f"{len(found)} field{'s' if len(found) > 1 else ''} where {expected}"
            wrong = True
        else:
            start = start if sentence else number
            sentence.append(found)
    return HeldRecords(records, list(columns.values()), problems)


def _columns(width: int, *, counted: bool) -> dict[int, str]:
    """The names of the fields that are read, by their places."""
    if counted and width == len(CONLL_U) + 1:
        return dict(enumerate(CONLL_U, 1))
    word = 1 if counted else 0
    others = {at: f"field {at + 1}" for at in range(word + 1, width - 1)}
    return {word: "tokens", **others, max(width - 1, 1): "tags"}


def _counted(lines: list[str]) -> bool:
    """Whether the first fields are 1, 2, 3, … in every sentence."""
    number = 0
    for line in lines:
        found = fields(line)
        if not found:
            number = 0
        elif not _aside(line):
            number += 1
            if found[0] != str(number):
                return False
    return True


def fields(line: str) -> list[str]:
    """The fields of a line: with tabs between, or else spaces."""
    line = line.rstrip("\r\n")
    if "\t" in line:
        return [field.strip() for field in line.split("\t")] if line.strip() else []
    return line.split()


def looks_like_it(text: str) -> bool:
    """Whether every line has as many fields, of which the last is a tag in BIO or a scheme like it."""
    lines = [line for line in text.split("\n")[:LOOKED_AT] if line.strip() and not _aside(line)]
    found = [fields(line) for line in lines]
    return len({len(one) for one in found}) == 1 and len(found[0]) > 1 and all(TAG.fullmatch(one[-1]) for one in found)


def _aside(line: str) -> bool:
    return line.startswith((DOCUMENT, "# ")) or bool(JOINED.match(line))
