"""The live line of a run: step, loss, rate, memory, and time to go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from graftune.comparison.compare import Event
    from graftune.training.loop import Report

#: Of several processes the first one speaks.
SPEAKS = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, quiet=not SPEAKS)


def _memory() -> str:
    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"


class Line:
    """One bar that follows the reports of a run; without a terminal, a line every tenth of the way."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.title = ""

    def show(self, title: str, report: Report | None, stage: str = "") -> None:
        """Show where a run stands."""
        if self.task is None or title != self.title:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.task = self.progress.add_task(title, total=None, facts=stage)
            self.title = title
        if report is None:
            self.progress.update(self.task, facts=stage)
            return
        facts = f"loss {report.loss:.3f}  {report.tokens_per_second:,.0f} tokens/s  {_memory()}"
        self.progress.update(self.task, total=report.steps, completed=report.step, facts=facts)
        if not console.is_terminal and report.step % max(1, report.steps // 10) == 0:
            console.print(f"{title}  step {report.step}/{report.steps}  {facts}", markup=False, soft_wrap=True)

    def report(self, report: Report) -> None:
        """For a single run."""
        self.show("training", report)

    def event(self, event: Event) -> None:
        """For a comparison."""
        one = event.trial
        what = f" rate {one.rate:.2g}" if one.stage != "report" else f" seed {one.seed}"
        title = f"[{event.number}/{event.total}] {one.stage} {event.method}{what}"
        self.show(title, event.report, event.stage)


@contextmanager
def line() -> Iterator[Line]:
    """A live line for the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Line(progress)


def say(text: str) -> None:
    """A remark about the run, on stderr, so that stdout stays for results."""
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
