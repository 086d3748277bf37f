"""The reference page of the keys, made of what each of them says."""

from __future__ import annotations

from graftune.config.described import Group, commands, default_of
from graftune.config.keys import GROUPS


def page() -> str:
    """A table in Markdown for each group of keys."""
    return "\n\n".join(_table(name, group) for name, group in GROUPS.items())


def _table(name: str, group: type[Group]) -> str:
    below = f" (may stand below `{name}:`)" if name else ""
    lines = [f"### {group.__doc__}{below}", "", "| key | flag of | default | meaning |", "|---|---|---|---|"]
    for key, field in group.model_fields.items():
        says = (field.description or "").rstrip(".").replace("|", r"\|")
        default = default_of(field).replace("|", r"\|")
        lines.append(f"| `{key}` | {', '.join(commands(field))} | {default} | {says} |")
    return "\n".join(lines)
