"""JSON documents: a list of objects, columns, SQuAD's paragraphs, or COCO's images and annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graftune.datasets.sources import coco
from graftune.datasets.sources.records import Records, numbered
from graftune.errors import GraftuneError


def read(path: Path, shown: str) -> Records:
    """The rows of a document, numbered from 1. Raises GraftuneError for broken JSON and for no rows in it."""
    return rows(load(path, shown), path.parent, shown)


def load(path: Path, shown: str) -> Any:
    """The document. Raises GraftuneError, with the line, for broken JSON."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem, received = "not UTF-8 text", f"byte {error.object[error.start]:#04x} at offset {error.start}"
    except RecursionError:
        problem, received = "broken JSON", "values nested too deeply"
    except ValueError as error:
        problem, received = "broken JSON", str(error)
    raise GraftuneError(
        f"{shown}: {problem}",
        received=received,
        expected="one JSON document, or an object a line",
        do="write the file again",
    )


def rows(document: Any, folder: Path, shown: str) -> Records:
    """The rows of a document. Raises GraftuneError where it holds none."""
    if isinstance(document, list):
        return numbered(document)
    if not isinstance(document, dict):
        raise _no_rows(shown, f"a JSON {type(document).__name__}")
    if coco.is_coco(document):
        return coco.records(document, folder)
    if _is_table(document.get("rows")) and all("row" in one for one in document["rows"]):
        return numbered(_of_viewer(document))
    if _is_split(document):
        names = [str(name) for name in document["columns"]]
        return numbered(dict(zip(names, row, strict=True)) for row in document["data"])
    if any(_is_conversation(value) for value in document.values()):
        return numbered([document])
    tables = {name: value for name, value in document.items() if _is_table(value)}
    table = tables.get("data") or (next(iter(tables.values())) if len(tables) == 1 else None)
    if table and all("paragraphs" in one for one in table):
        return numbered(_questions(table))
    if table and ("data" in tables or len(document) == 1 or not _is_columns(document)):
        return numbered(table)
    if _is_columns(document):
        return numbered(dict(zip(document, row, strict=True)) for row in zip(*document.values(), strict=True))
    if _is_frame(document):
        keys = next(iter(document.values()))
        return numbered({name: column[key] for name, column in document.items()} for key in keys)
    if _is_frame(document, by_row=True):
        return numbered(document.values())
    if document and not tables:
        return numbered([document])
    raise _no_rows(shown, "an object with " + (", ".join(map(repr, document)) or "nothing"))


def _of_viewer(document: Mapping[str, Any]) -> Iterator[Any]:
    """Rows as the Hub's viewer gives them, {"row_idx": 0, "row": {…}, …}, with the names of their classes."""
    features = [one for one in _objects(document.get("features")) if isinstance(one, dict)]
    kinds = {one.get("name"): one.get("type") for one in features}
    names = {name: kind["names"] for name, kind in kinds.items() if isinstance(kind, dict) and "names" in kind}
    for one in document["rows"]:
        row = one["row"]
        if isinstance(row, dict):
            own = {name: row[name] for name in names if isinstance(row.get(name), int)}
            row = row | {name: names[name][at] if 0 <= at < len(names[name]) else None for name, at in own.items()}
        yield row


def _is_table(value: Any) -> bool:
    """A list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _is_conversation(value: Any) -> bool:
    return _is_table(value) and all("role" in one or "from" in one for one in value)


def _is_columns(document: Mapping[str, Any]) -> bool:
    """Lists of one length."""
    values = list(document.values())
    return bool(values) and all(isinstance(one, list) for one in values) and len({len(one) for one in values}) == 1


def _is_split(document: Mapping[str, Any]) -> bool:
    """Names and rows of values as pandas writes them, {"columns": ["text", …], "data": [["a", …], …]}."""
    names, data = document.get("columns"), document.get("data")
    return (
        isinstance(names, list)
        and isinstance(data, list)
        and all(isinstance(row, list) and len(row) == len(names) for row in data)
    )


def _is_frame(document: Mapping[str, Any], *, by_row: bool = False) -> bool:
    """Columns as pandas writes them, {"text": {"0": …, "1": …}, …}, or its rows, {"0": {"text": …}, …}."""
    values = list(document.values())
    return (
        bool(values)
        and all(isinstance(one, dict) and one.keys() == values[0].keys() for one in values)
        and all(key.isdecimal() for key in (document if by_row else values[0]))
    )


def _questions(articles: list[dict[str, Any]]) -> Iterator[Any]:
    """SQuAD's questions, each with its paragraph; an answer's place counts in that paragraph."""
    for article in articles:
        for paragraph in _objects(article.get("paragraphs")):
            if not isinstance(paragraph, dict):
                yield paragraph
                continue
            for one in _objects(paragraph.get("qas")):
                if not isinstance(one, dict):
                    yield one
                    continue
                answers = [] if one.get("is_impossible") is True else one.get("answers")
                yield {
                    "id": one.get("id"),
                    "title": article.get("title"),
                    "context": paragraph.get("context"),
                    "question": one.get("question"),
                    "answers": answers,
                }


def _objects(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _no_rows(shown: str, received: str) -> GraftuneError:
    return GraftuneError(
        f"{shown}: no rows were found in the document",
        received=received,
        expected='a list of objects, {"data": [...]}, columns of one length, or the JSON of SQuAD or COCO',
        do="save the rows as an object a line (.jsonl)",
    )
