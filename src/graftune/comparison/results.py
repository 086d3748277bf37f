"""The results of a comparison, as they stand in its folder, and reading them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from graftune.comparison.lines import Run
from graftune.comparison.plan import Finished
from graftune.comparison.points import options_of
from graftune.errors import GraftuneError, unknown


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.=,-]+", "_", label).rstrip("_")


class Header(BaseModel):
    """What was compared, on what, and where."""

    task: str
    base: str
    base_parameters: int
    base_bytes: int
    train: str
    eval: str
    train_rows: int
    eval_rows: int
    metric: str
    budget: str
    effort: str = "none"
    choose_rows: int = 0
    centres: dict[str, float | None] = Field(default_factory=dict)
    limits: dict[str, float] = Field(default_factory=dict)
    batch_size: int = 1
    seeds: list[int]
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    created: str = ""
    data: dict[str, str] = Field(default_factory=dict)
    """Fingerprints of the rows, by split, and of the base."""
    copies: int = 0
    """Reported rows whose input is trained on as well."""
    finished: int | None = None
    """How many lines there were when nothing was left to do; 0 while there is, None where it is not known."""


class Comparison(BaseModel):
    """A comparison folder, read."""

    header: Header
    runs: list[Run]
    folder: Path = Path()
    _known: dict[str, Any] = PrivateAttr(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, worked out once."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    @property
    def writes(self) -> bool:
        """Whether the task's answers are texts, whose rates are chosen by the loss."""
        return any("perplexity" in run.metrics for run in self.reported)

    @property
    def reported(self) -> list[Run]:
        """The runs on all training rows whose figures are reported."""
        return [run for run in self.runs if run.stage == "report" and run.rows is None]

    @property
    def scored(self) -> list[Run]:
        """Those of them that have finished, with a number."""
        runs = [run for run in self.reported if run.status == "done"]
        return [run for run in runs if math.isfinite(run.metrics.get(self.header.metric, math.nan))]

    def tried(self, label: str, stage: str) -> dict[float, float | None]:
        """The scores of a candidate's rates in a stage of the search; None where it failed."""
        own = [run for run in self.runs if run.label == label and run.stage == stage and run.rate is not None]
        return {run.rate: run.finished.score for run in own if run.rate is not None}

    def finished(self) -> list[Finished]:
        """What the plan of the rest depends on. A reported run that has failed is tried again, and so is any trial
        that failed for a reason that may have passed."""
        return [run.finished for run in self.runs if not run.to_repeat]


def figures_of(folder: Path, label: str, seed: int) -> Path:
    """The file with the figures of a reported trial's rows, on all training rows."""
    return folder / "figures" / f"{slug(label)}-seed{seed}.json"


def load(folder: str | Path) -> Comparison:
    """Read ``comparison.json`` and ``results.jsonl``. A repeated run counts once, by its last line."""
    folder = Path(folder)
    file = folder / "comparison.json"
    if not file.is_file():
        raise GraftuneError(
            "this is not a comparison folder",
            received=folder,
            expected="a folder with comparison.json and results.jsonl",
            do="give the folder that was passed to the comparison as its output",
        )
    try:
        header = Header.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise unreadable(file, _first(error)) from error
    runs = _runs(folder / "results.jsonl")
    known = {name for run in runs if run.status == "done" for name in run.metrics}
    if known and header.metric not in known:
        raise unknown("metric", header.metric, known)
    return Comparison(header=header, runs=runs, folder=folder)


def _runs(file: Path) -> list[Run]:
    """The runs of a results file; none, if no run has finished yet."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    runs: dict[tuple[object, ...], Run] = {}
    for number, line in numbered:
        try:
            run = Run.model_validate(json.loads(line))
        except ValidationError as error:
            raise unreadable(f"{file}, line {number}", _first(error)) from error
        except ValueError as error:
            # A kill leaves half a line at the end. Anywhere else it means that the file was damaged.
            if number == numbered[-1][0]:
                break
            raise unreadable(f"{file}, line {number}", str(error)) from error
        point = None if run.stage == "report" else (run.rate, options_of(run.options))
        runs[run.label, run.stage, run.seed, run.rows, point] = run
    return list(runs.values())


def _first(error: ValidationError) -> str:
    """The first complaint of pydantic, with the place it is about."""
    complaint = error.errors()[0]
    return f"{'.'.join(map(str, complaint['loc'])) or 'the line'}: {complaint['msg']}"


def unreadable(place: object, why: str) -> GraftuneError:
    """The error for a file that is not what the comparison wrote."""
    return GraftuneError(
        f"cannot read {place}", received=why, expected="what the comparison wrote", do="repair or remove it"
    )
