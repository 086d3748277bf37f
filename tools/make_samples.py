"""Write the sample data that ships with the package.

    python tools/make_samples.py src/graftune/datasets/samples

The rows depend on the grammar alone, so that a second run writes the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import typer
from sample_data import table_to_text, text_to_label
from sample_data.splits import Split

from graftune.files import write_text

SETS = {"table-to-text": table_to_text, "text-to-label": text_to_label}


def write(folder: Path) -> None:
    """Write SET/train.jsonl and SET/dev.jsonl into the folder."""
    for name, rows in SETS.items():
        for split in get_args(Split):
            write_text(folder / name / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows(split)))


if __name__ == "__main__":
    typer.run(write)
