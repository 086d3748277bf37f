"""Scores of predictions against references, each by the package that the field reports with."""

from graftune.tasks.metrics.classification import classes, multi_label
from graftune.tasks.metrics.detection import detection
from graftune.tasks.metrics.regression import regression
from graftune.tasks.metrics.scores import Scores, Sums
from graftune.tasks.metrics.spans import spans
from graftune.tasks.metrics.tags import marked, tags
from graftune.tasks.metrics.text import generation, rouge_first, summaries

__all__ = [
    "Scores",
    "Sums",
    "classes",
    "detection",
    "generation",
    "marked",
    "multi_label",
    "regression",
    "rouge_first",
    "spans",
    "summaries",
    "tags",
]
