"""Predictors: a finished run or an adapter, loaded with its base, task and template, that answers and evaluates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftune import checkpoint
from graftune.bases.loading import load_base, load_config, load_processor
from graftune.checkpoint import native, peft
from graftune.checkpoint.processor import of_processor
from graftune.datasets.rows import Row, Table, read, row_of
from graftune.errors import GraftuneError
from graftune.inference.evaluation import evaluate
from graftune.inference.running import Progress
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from graftune.tasks.bound import BoundTask, Evaluation
from graftune.tasks.task import Task
from graftune.templates.template import Template

NAME = "adapter"
BATCH_SIZE = 32


@dataclass(frozen=True)
class Predictor:
    """A base with one adapter (or none), and the task and template to use it with.

    Call it with inputs for answers: `predictor(["name : Blue Heron | type : ferry"])`.
    """

    model: AdaptedModel
    task: BoundTask
    template: Template
    adapter: str | None
    max_length: int | None

    @classmethod
    def load(
        cls,
        run: str | Path | None,
        *,
        base: str | None = None,
        task: str | None = None,
        precision: str | None = None,
        quantize: str | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        data: str | Path | None = None,
    ) -> Predictor:
        """Load a run, or the folder of an adapter, with its base; None is the plain base.

        What the adapter does not say must be given; what is given goes first. ``options`` are those of tasks, by
        task. ``data`` settles what a task that the adapter was not trained on leaves open, such as the labels. Raises
        GraftuneError for a missing or damaged adapter, another base, or a task that is not known.
        """
        folder = None if run is None else adapter_folder(run)
        use: dict[str, Any] = {}
        if folder is not None and (folder / native.CARD).exists():
            use = native.card(folder).get("use") or {}
        base = base or use.get("base")
        if base is None:
            raise GraftuneError(
                "the base is not known",
                received="no --base",
                expected="--base DIR|NAME",
                do="name the adapter's base",
            )
        chosen = _task(use.get("task"), task, options or {}, trained=folder is not None)
        if data is not None and (folder is None or chosen.name != (use.get("task") or {}).get("task")):
            chosen = chosen.fit(read(data, columns=chosen.columns).rows)
        use = {**use, **({} if quantize is None else {"quantize": quantize})}
        return cls._on(base, chosen, folder, use, precision)

    @classmethod
    def _on(
        cls, base: str, task: Task, folder: Path | None, use: Mapping[str, Any], precision: str | None
    ) -> Predictor:
        processor = load_processor(base, task.processor)
        config = load_config(base)
        head = task.head(config)
        precision = precision or use.get("precision", "auto")
        model = AdaptedModel(load_base(base, head, processor, precision, quantize=use.get("quantize")), processor)
        text = task.template
        heads: tuple[str, ...] = ()
        if folder is not None:
            loaded = checkpoint.load(model, NAME, folder)
            if use.get("processor") not in (None, of_processor(processor, chat=task.chat)):
                raise GraftuneError(
                    "this adapter belongs to another tokenizer, chat template or image processor",
                    received=f"a {type(processor).__name__} in {base} that reads otherwise",
                    expected="the one that the adapter was trained with",
                    do="load the base with the files that it had then",
                )
            text, heads = use.get("template") or loaded.method.template, loaded.heads
        if not set(head.modules(model.base)) <= set(heads) and not head.is_of(model.base, config):
            raise GraftuneError(
                f"nothing is trained for the task {task.name!r}",
                received="the plain base" if folder is None else f"an adapter that has no head for it: {folder}",
                expected="an adapter that was trained for the task, or a base that has the head and the labels",
                do=f"train it: graftune train --task {task.name} --train FILE",
            )
        model.eval()
        bound = task.bind(model.config, processor)
        name = None if folder is None else NAME
        return cls(model, bound, Template(text), name, use.get("max_length"))

    def __call__(self, inputs: Iterable[Any], batch_size: int = BATCH_SIZE) -> list[Any]:
        """The answer to each input: generated text, a label, tags …

        An input is what the task reads (text, a list of words, an image or its path), or a record of columns where it
        reads several. Raises GraftuneError for inputs that it cannot read, and for one alone, outside of a list.
        """
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise GraftuneError(
                "inputs come as a list",
                received=f"a {type(inputs).__name__}",
                expected="a list of inputs, such as ['one text', 'another']",
                do="put it into a list",
            )
        rows = [self._row(given, number) for number, given in enumerate(inputs, 1)]
        if not rows:
            return []
        answers = {p["line"]: p["prediction"] for p in self._evaluate(rows, batch_size).predictions}
        by_key = {self.task.group_key(row): answers[row.line] for row in rows if row.line in answers}
        return [by_key[self.task.group_key(row)] for row in rows]

    def _row(self, given: Any, number: int) -> Row:
        """A row with a target that stands in. Raises GraftuneError where a column is missing that the task reads."""
        row = given if isinstance(given, Row) else row_of(given, self.task.task.columns, number)
        columns = self.template.columns
        if missing := [name for name in columns if name not in row.texts]:
            raise GraftuneError(
                "an input lacks columns that the adapter reads",
                received=f"input {number} with {', '.join(row.columns) or 'one text and no columns'}",
                expected=f"a record with {', '.join(name for name in columns if name != 'input')}",
                do=f"give a record or a file with {', '.join(map(repr, missing))}: --eval FILE",
            )
        return replace(row, target=self.task.dummy_target(row), line=number, references=())

    def evaluate(
        self,
        data: str | Path | Table | Sequence[Row | Mapping[str, Any]],
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Metrics and predictions on a file, a table, rows, or records with the columns of a file.

        Raises GraftuneError for data that the task cannot use.
        """
        if isinstance(data, Table):
            return self._evaluate(data.rows, batch_size, progress)
        if isinstance(data, str | Path) or not all(isinstance(row, Row) for row in data):
            return self._evaluate(read(data, columns=self.task.task.columns).rows, batch_size, progress)  # type: ignore[arg-type]
        return self._evaluate(data, batch_size, progress)  # type: ignore[arg-type]

    def _evaluate(self, rows: Sequence[Row], batch_size: int, progress: Progress | None = None) -> Evaluation:
        return evaluate(
            self.model,
            self.task,
            rows,
            self.adapter,
            self.template,
            batch_size=batch_size,
            max_length=self.max_length,
            progress=progress,
        )


#: What `gt.load` is.
load = Predictor.load


def adapter_folder(run: str | Path) -> Path:
    """The adapter's folder: the one given, or `adapter` in the folder of a run. Raises GraftuneError for neither."""
    folder = Path(run).expanduser()
    for place in (folder, folder / "adapter"):
        if (place / native.CARD).exists() or (place / peft.CONFIG).exists():
            return place
    raise GraftuneError(
        f"no adapter in {run}",
        received="a folder without one" if folder.is_dir() else "no such folder",
        expected=f"the folder of a run, or one with {native.CARD} (Graftune) or {peft.CONFIG} (Hugging Face PEFT)",
        do="check the path; a run that did not finish has no adapter yet: go on with --resume",
    )


def _task(
    known: Mapping[str, Any] | None, name: str | None, options: Mapping[str, Mapping[str, Any]], *, trained: bool
) -> Task:
    """The task that an adapter was trained on, or the one asked for."""
    name = name or (known["task"] if known else "generate")
    own = dict(options.get(name, {}))
    if known is not None and name == known["task"]:
        state = dict(known)
        return registry.from_state({**state, "options": {**state["options"], **own}})
    task = registry.make(name, **own)
    return task if trained else task.without_training()
