"""Trials on a Ray cluster: each is a task in a fresh process, on any machine that sees the same files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from graftune.comparison import trial
from graftune.comparison.assignment import Assignment, Tell, quiet
from graftune.errors import GraftuneError


class Cluster:
    """Runs trials on the cluster that `RAY_ADDRESS` names, else on one of this machine alone, which ends with it.

    A trial takes `threads` cores, and a GPU where there are any. Raises GraftuneError where Ray is not installed.
    """

    def __init__(self, threads: int | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise GraftuneError(
                "Ray is not installed",
                received="workers=ray",
                expected="the package ray",
                do="pip install 'graftune[ray]', or use processes on this machine: --workers 2",
            ) from error
        self._ray: Any = ray
        self._threads = threads or 1

    def __enter__(self) -> Self:
        ray = self._ray
        self._began = not ray.is_initialized()
        if self._began:
            ray.init(log_to_driver=False, include_dashboard=False)
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        self.places = gpus or max(1, int(there.get("CPU", 1)) // self._threads)
        # A process that has run one task ends, so that no trial finds what another one has left.
        options = {"num_cpus": self._threads, "num_gpus": 1 if gpus else 0, "max_calls": 1, "max_retries": 0}
        self._remote = ray.remote(**options)(_there)
        return self

    def __exit__(self, *_: object) -> None:
        if self._began:
            self._ray.shutdown()

    def __call__(self, assignment: Assignment, tell: Tell = quiet) -> dict[str, Any]:
        """The line of a trial. That its worker was lost is the line's error."""
        tell("on the cluster", None)
        try:
            line: dict[str, Any] = self._ray.get(self._remote.remote(os.getcwd(), assignment))
        except self._ray.exceptions.RayError as error:
            line = assignment.broken(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return line


def _there(folder: str, assignment: Assignment) -> dict[str, Any]:
    if Path(folder).is_dir():
        os.chdir(folder)  # paths in a recipe are as its user has written them
    return trial.run(assignment)
