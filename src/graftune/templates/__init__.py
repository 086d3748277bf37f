"""Templates: which text, virtual tokens and hidden word a model reads, and their tokens."""

from graftune.templates.template import Encoded, Template

__all__ = ["Encoded", "Template"]
