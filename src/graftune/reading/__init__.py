"""Reading: rows out of files, what one value has to be, and templates that turn rows into tokens."""

from graftune.reading.rows import Row, Table, grouped, read
from graftune.reading.template import Encoded, Template

__all__ = ["Encoded", "Row", "Table", "Template", "grouped", "read"]
