"""Data sets: rows out of files, and what one value has to be. Knows no model and no tokenizer."""

from graftune.datasets.rows import Row, Rows, Table, grouped, read

__all__ = ["Row", "Rows", "Table", "grouped", "read"]
