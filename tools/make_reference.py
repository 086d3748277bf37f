"""Write the reference of a recipe's keys into docs/recipes.md, from what the keys say of themselves:

python tools/make_reference.py
"""

from __future__ import annotations

import re
from pathlib import Path

import typer

from graftune.config.reference import page

FILE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
BEGIN, END = "<!-- made by tools/make_reference.py -->\n", "<!-- end -->"


def main() -> None:
    """Replace what stands between the marks."""
    text = FILE.read_text(encoding="utf-8")
    FILE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{page()}\n{END}", text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
