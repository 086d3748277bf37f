"""Using a trained adapter again: its card says which base, task and template it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftune import checkpoint
from graftune.bases.loading import load_base, load_processor
from graftune.checkpoint import native
from graftune.datasets.rows import Row, Table
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from graftune.tasks.running import Progress
from graftune.tasks.task import Evaluation, Task
from graftune.templates.template import Template

NAME = "adapter"


@dataclass(frozen=True)
class Ready:
    """A base with one adapter (or none), and the task and template to use it with."""

    model: AdaptedModel
    tokenizer: Any
    task: Task
    template: Template
    adapter: str | None
    max_length: int | None

    def evaluate(self, table: Table, batch_size: int, progress: Progress | None = None) -> Evaluation:
        """Metrics and predictions on a table of rows, whose labels are all that the plain base knows."""
        self.task.check(table.rows)
        return self.task.evaluate(
            self.model,
            self.tokenizer,
            table.rows,
            self.adapter,
            self.template,
            batch_size=batch_size,
            max_length=self.max_length,
            progress=progress,
        )

    def answer(self, asked: Sequence[Row], batch_size: int) -> list[str]:
        """The model's answer to the input of each row: generated text, a label, tags …"""
        rows = [replace(row, target=self.task.blank(row.input), line=i) for i, row in enumerate(asked, 1)]
        table = Table(rows, "input", "target", False, "inputs")
        answers = {p["line"]: str(p["prediction"]) for p in self.evaluate(table, batch_size).predictions}
        by_key = {self.task.key(row): answers[row.line] for row in rows if row.line in answers}
        return [by_key[self.task.key(row)] for row in rows]


def ready(
    adapter: str | Path | None,
    *,
    base: str | None = None,
    task: str | None = None,
    precision: str | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> Ready:
    """Load an adapter with its base. What its card does not say must be given; what is given goes first.

    ``options`` are those of tasks, by task. Raises GraftuneError for a missing or damaged adapter, another base,
    or a task that is not known.
    """
    use: dict[str, Any] = {}
    if adapter is not None:
        folder = Path(adapter)
        if (folder / native.CARD).exists():
            use = native.card(folder).get("use") or {}
        elif not folder.is_dir():
            raise GraftuneError(
                f"no adapter in {adapter}",
                received="no such folder",
                expected="the folder of an adapter, for a run OUT that is OUT/adapter",
                do="check the path",
            )
    base = base or use.get("base")
    if base is None:
        raise GraftuneError(
            "the base is not known",
            received="no --base",
            expected="--base DIR|NAME",
            do="name the adapter's base",
        )
    known = use.get("task")
    task = task or (known["task"] if known else "generate")
    own = (options or {}).get(task, {})
    if adapter is None and task == "classify":  # the plain base has no trained head, but words
        task, own = "cloze", {"words": "first", **(options or {}).get("cloze", {})}
    if known is not None and task == known["task"]:
        chosen = registry.from_state({**known, "options": {**known["options"], **own}})
    else:
        chosen = registry.make(task, **own)
    tokenizer = load_processor(base, chosen)
    precision = precision or use.get("precision", "auto")
    model = AdaptedModel(load_base(base, chosen, tokenizer, precision, quantize=use.get("quantize")), tokenizer)
    if adapter is not None:
        loaded = checkpoint.load(model, NAME, Path(adapter))
        text = use.get("template") or loaded.method.template
    else:
        text = chosen.template
    model.eval()
    chosen.bind(model.config, tokenizer)
    positions = model.positions
    return Ready(
        model,
        tokenizer,
        chosen,
        Template(text),
        None if adapter is None else NAME,
        use.get("max_length") or positions,
    )
