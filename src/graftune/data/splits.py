"""The two splits of the embedded table-to-text set, as rows and as JSON Lines files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Literal, get_args

from graftune.data import boats, sentences
from graftune.errors import GraftuneError, unknown

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


def write(folder: str | Path) -> list[Path]:
    """Write ``train.jsonl`` and ``dev.jsonl`` into the folder and return their paths."""
    return [_written(Path(folder) / f"{split}.jsonl", _lines(split)) for split in get_args(Split)]


def path(split: Split) -> Path:
    """The split as a JSON Lines file in the user's cache, written on first use.

    The folder's name is a digest of the content, so another version of the grammar has files of its own.
    """
    content = _lines(split)
    name = Path(hashlib.sha256(content).hexdigest()[:12]) / f"{split}.jsonl"
    try:
        return _written(_cache() / name, content)
    except OSError:  # a home that cannot be written to, as in many containers
        return _written(Path(tempfile.gettempdir()) / "graftune-data" / name, content)


def _lines(split: Split) -> bytes:
    """The split as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in table_to_text(split)).encode()


def _cache() -> Path:
    """The folder for files that can be made again, by the custom of the platform."""
    if chosen := os.environ.get("GRAFTUNE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "graftune" / "data"


def _written(file: Path, content: bytes) -> Path:
    """The file with this content; it appears whole or not at all, also beside other processes."""
    if file.is_file() and file.read_bytes() == content:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(content)
    os.replace(part.name, file)
    return file
