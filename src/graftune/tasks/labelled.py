"""Tasks whose targets are labels."""

from __future__ import annotations

from graftune.tasks import labels
from graftune.tasks.task import Task


class Labelled(Task):
    """A task that tells labels apart; those that the user does not name are found in the training rows by `fit`."""

    labels: tuple[str, ...] | None

    @property
    def known(self) -> tuple[str, ...]:
        """The labels. Raises GraftuneError where they are still open."""
        return labels.settled(self.labels, self.name)

    @property
    def expectation(self) -> str:
        return "labels that the training rows have"
