"""Workers: who runs the trials of a comparison, and how many at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from graftune.comparison import trial
from graftune.comparison.assignment import Assignment, Tell
from graftune.comparison.processes import Processes
from graftune.config.recipe import Recipe
from graftune.training import distributed

if TYPE_CHECKING:
    from graftune.comparison.settings import Settings

#: Runs a trial to its line of results.
Run = Callable[[Assignment, Tell], dict[str, Any]]


class Here(Executor):
    """Calls a function at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is there already; what the function raises is raised."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def of(settings: Settings, base: PreTrainedModel | None) -> Iterator[tuple[Run, Executor, int]]:
    """What runs a trial, by whom it is called, and how many trials are run at a time.

    A base that is a model, a method that only the calling script knows and torchrun need this process itself.
    """
    wanted = settings.recipe.compare.workers
    if wanted == "ray":
        from graftune.comparison.on_ray import Cluster

        with Cluster(settings.recipe.threads) as run:
            count = run.places
            with ThreadPoolExecutor(count) as pool:
                yield run, pool, count
    elif wanted == 0 or base is not None or distributed.size() > 1 or not settings.portable:
        yield trial.run, Here(), 1
    else:
        count = wanted or 1
        with ThreadPoolExecutor(count) as pool, Processes() as run:
            yield run, pool, count


def threads(recipe: Recipe) -> int | None:
    """How many threads a trial computes with: those of the recipe, else its part of this machine's among others."""
    count = recipe.compare.workers
    if recipe.threads is not None or not isinstance(count, int) or count < 2:
        return recipe.threads
    return max(1, (os.cpu_count() or 1) // count)
