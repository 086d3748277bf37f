"""Small sets made by a seeded grammar, to try every method without a download: table-to-text and classification."""

from sample_data.labels import text_to_label
from sample_data.splits import table_to_text

__all__ = ["table_to_text", "text_to_label"]
