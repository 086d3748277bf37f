"""What a file is: seen from its content, and from its extension where that leaves a choice."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from graftune.datasets.sources import arrow, conll, json_document, json_lines, separated, text
from graftune.datasets.sources.plain import PACKED
from graftune.datasets.sources.records import Records
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError, unknown

Reader = Callable[[Path, str], Records]
HEAD = 2**16  # bytes that tell what a file is
MARK = b"\xef\xbb\xbf"  # that UTF-8 may start with

LINES: Final = (".jsonl", ".ndjson")
COLUMNS: Final = (".conll", ".bio", ".iob", ".iob2", ".conllu")
READERS: Final[dict[str, Reader]] = {
    **dict.fromkeys(LINES, json_lines.read),
    ".json": json_document.read,
    ".csv": separated.read,
    ".tsv": separated.read_tabs,
    ".txt": text.read,
    **dict.fromkeys(COLUMNS, conll.read),
    ".parquet": arrow.parquet,
    **dict.fromkeys((".arrow", ".feather"), arrow.stored),
}


def reader(path: Path) -> Reader:
    """How to read a file. Raises GraftuneError where neither its content nor its extension tells."""
    ends = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(HEAD)
        whole = not file.read(1)
    found = _by_content(head, whole, ends) or READERS.get(ends)
    if found is None:
        raise unknown("file extension", path.suffix or path.name, [*READERS, *PACKED])
    return found


def _by_content(head: bytes, whole: bool, ends: str) -> Reader | None:
    """The reader that the first bytes call for; None leaves it to the extension."""
    if head.startswith(b"PAR1"):
        return arrow.parquet
    if head.startswith(arrow.ARROW):
        return arrow.stored
    if ends in (".parquet", ".arrow", ".feather", *COLUMNS):
        return None
    start = head.removeprefix(MARK).lstrip()[:1]
    if start == b"{":
        return _of_objects(head, ends)
    if start == b"[" and re.match(rb"\s*\[\s*(\{|\]|$)", head.removeprefix(MARK)):  # a list, not text in brackets
        return json_document.read
    return _of_text(head if whole else head.rpartition(b"\n")[0], ends, whole=whole)


def _of_objects(head: bytes, ends: str) -> Reader | None:
    """An object a line, or one document: a document's first line is no whole object, or its only one."""
    lines = [line for line in head.removeprefix(MARK).split(b"\n") if line.strip()]
    try:
        json_lines.parse(lines[0])
    except InvalidValue:
        if ends in READERS and ends != ".json":
            return None
        return json_lines.read if len(lines) > 1 and lines[1].startswith(b"{") else json_document.read
    return json_document.read if len(lines) == 1 and ends not in LINES else json_lines.read


def _of_text(head: bytes, ends: str, *, whole: bool) -> Reader | None:
    """Columns in a text file, and tables with the extension of something else."""
    if ends in (".csv", ".tsv"):
        return None
    if conll.looks_like_it(head.decode("utf-8-sig", "replace")):
        return conll.read
    if text.is_labelled(head):
        return text.read_labelled
    if ends == ".txt":
        return separated.read_tabs if b"\t" in head and _is_table(head, separated.tabs, whole=whole) else None
    return separated.read if _is_table(head, separated.sniffed, whole=whole) else None


def _is_table(head: bytes, layout: Callable[[separated.Opener, str], separated.Layout], *, whole: bool) -> bool:
    """Whether every row has as many fields as the first, and more than one."""
    opener = lambda: io.BytesIO(head)
    try:
        rows, bad, width = separated.fit(layout(opener, ""), opener, "", cut=not whole)
    except GraftuneError:
        return False
    return width > 1 and rows > 0 and not bad
