"""A method's template inside a task's."""

from __future__ import annotations

from graftune.templates.segments import PIECES
from graftune.templates.template import Template


def composed(inner: str, outer: str) -> str:
    """A method's template with a task's: the method's stands for `{input}` in the task's.

    A method's template that itself says where columns and `{mask}` stand is taken alone; a task's that names only
    other columns stands for `{input}` in the method's.
    """
    method, task = Template(inner), Template(outer)
    if method.has_mask or method.columns != ("input",):
        return inner
    around, within = (outer, inner) if "input" in task.columns else (inner, outer)
    return PIECES.sub(lambda match: within if match["slot"] == "input" else match.group(), around)
