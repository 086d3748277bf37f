"""The live line of a run: step, loss, rate, memory, and time to go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from graftune.comparison.engine import Event
    from graftune.training.loop import Report

#: Of several processes the first one speaks.
SPEAKS = os.environ.get("RANK", "0") == "0"
console = Console(stderr=True, quiet=not SPEAKS)


def _memory() -> str:
    return f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"


class Line:
    """Bars that follow the reports of a run; without a terminal, a line every tenth of the way.

    A comparison has a bar for the whole plan, and one for each trial that is running.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.plan: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}

    def show(self, title: str, report: Report | None, stage: str = "") -> None:
        """Show where a run stands."""
        if title not in self.tasks:
            self.tasks[title] = self.progress.add_task(title, total=None, facts=stage)
        if report is None:
            self.progress.update(self.tasks[title], facts=stage)
            return
        facts = f"loss {report.loss:.3f}  {report.tokens_per_second:,.0f} tokens/s"
        self.progress.update(self.tasks[title], total=report.steps, completed=report.step, facts=facts)
        if not console.is_terminal and report.step % max(1, report.steps // 10) == 0:
            line = f"{title}  step {report.step}/{report.steps}  {facts}  {_memory()}"
            console.print(line, markup=False, soft_wrap=True)

    def report(self, report: Report) -> None:
        """For a single run."""
        self.show("training", report)

    def event(self, event: Event) -> None:
        """For a comparison; several threads may tell."""
        one = event.trial
        rate = "" if one.rate is None else f" rate {one.rate:.2g}"
        rows = "" if one.rows is None else f" {one.rows} rows"
        title = f"{one.stage} {event.method}{rate}{rows} seed {one.seed}"
        if self.plan is None:
            self.plan = self.progress.add_task("trials", total=event.total, facts="")
        self.progress.update(self.plan, completed=event.finished, total=event.total, facts=_memory())
        if not event.is_over:
            self.show(title, event.report, event.stage)
        elif (task := self.tasks.pop(title, None)) is not None:
            self.progress.remove_task(task)
            if not console.is_terminal:
                console.print(f"[{event.finished}/{event.total}] {title}", markup=False, soft_wrap=True)


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


@contextmanager
def page(out: Path, wanted: bool) -> Iterator[Callable[[Event], None]]:
    """Within the block the report is served to this machine, where that is wanted; what the page is told by."""
    if not wanted:
        yield lambda _: None
        return
    from graftune.comparison.watching import Page, served

    shown = Page(out)
    with served(shown) as address:
        say(f"the report as it grows: {address}")
        yield shown.event


def both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    """Tells one after the other."""

    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def say(text: str) -> None:
    """A remark about the run, on stderr, so that stdout stays for results."""
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
