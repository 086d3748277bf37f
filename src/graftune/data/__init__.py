"""Small sets made by a seeded grammar, to try every method without a download: table-to-text and classification."""

from graftune.data.files import name, path, write
from graftune.data.labels import text_to_label
from graftune.data.splits import table_to_text

__all__ = ["name", "path", "table_to_text", "text_to_label", "write"]
