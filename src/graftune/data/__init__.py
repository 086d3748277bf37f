"""A small table-to-text set made by a seeded grammar, to try every method without a download."""

from graftune.data.splits import path, table_to_text, write

__all__ = ["path", "table_to_text", "write"]
