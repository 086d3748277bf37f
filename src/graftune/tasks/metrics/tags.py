"""Scores of tags: entities as conlleval counts them, or words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import version

from graftune.tasks.metrics.classification import classes
from graftune.tasks.metrics.scores import Scores, Sums

Tags = Sequence[Sequence[str]]


def tags(predictions: Tags, truth: Tags) -> Scores:
    """Precision, recall and F1 of entities (micro average) and accuracy of words, from 0 to 1.

    Without tags that begin entities (B-, I- …) the words are the entities: F1 is the macro average then.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.metrics.sequence_labeling import get_entities

    flat_guesses, flat_truth = ([tag for row in side for tag in row] for side in (predictions, truth))
    correct = sum(guess == tag for guess, tag in zip(flat_guesses, flat_truth, strict=True))
    accuracy = {"accuracy": correct / len(flat_truth)}
    if not _marks_entities([*flat_truth, *flat_guesses]):
        names = sorted({*flat_truth, *flat_guesses})
        numbers = [[names.index(tag) for tag in side] for side in (flat_guesses, flat_truth)]
        return Scores(classes(*numbers).values, {"f1": "macro F1 of words: the tags mark no entities"})
    sides = [list(row) for row in truth], [list(row) for row in predictions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where nothing is predicted, it scores 0 and warns
        values = {
            "f1": float(f1_score(*sides)),
            "precision": float(precision_score(*sides)),
            "recall": float(recall_score(*sides)),
        }
    rows = []
    for own, guess in zip(*sides, strict=True):
        wanted, found = set(get_entities(own)), set(get_entities(guess))
        rows.append((float(len(wanted & found)), float(len(found)), float(len(wanted))))
    note = {"f1": f"seqeval {version('seqeval')}, entities, micro average, as conlleval counts"}
    return Scores(values | accuracy, note, Sums("f1", rows))


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """The words with their entities in brackets: ``of [colon cancer | Disease] .``; other tags after each word."""
    from seqeval.metrics.sequence_labeling import get_entities

    if not _marks_entities(tags):
        return " ".join(words) if set(tags) <= {"O"} else " ".join(map("/".join, zip(words, tags, strict=True)))
    shown = list(words)
    for kind, first, last in get_entities(list(tags)):
        shown[first] = f"[{shown[first]}"
        shown[last] = f"{shown[last]} | {kind}]"
    return " ".join(shown)


def _marks_entities(tags: Sequence[str]) -> bool:
    return any(tag[:2] in ("B-", "I-") for tag in tags)
