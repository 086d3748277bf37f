"""Scores of boxes: COCO's mean average precision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

from graftune.tasks.metrics.scores import Scores

Found = tuple[Any, Any, Any]


def detection(predictions: Sequence[Found], truth: Sequence[tuple[Any, Any]], labels: Sequence[str]) -> Scores:
    """COCO's mean average precision, from 0 to 1: over overlaps of 0.5 to 0.95, at 0.5, at 0.75, and by class.

    A prediction is scores (n,), labels (n,) and boxes (n, 4) of edges in pixels; truth is labels and boxes.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def coco(boxes: Any) -> Any:
        """Left, top, width and height."""
        return [[x, y, right - x, bottom - y] for x, y, right, bottom in boxes.tolist()]

    objects = [
        {"image_id": image, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for image, (wanted, boxes) in enumerate(truth)
        for label, box in zip(wanted, coco(boxes), strict=True)
    ]
    guesses = [
        {"image_id": image, "category_id": int(label), "bbox": box, "score": float(score)}
        for image, (scores, found, boxes) in enumerate(predictions)
        for score, label, box in zip(scores, found, coco(boxes), strict=True)
    ]
    data = COCO()
    data.dataset = {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": number} for number in range(len(labels))],
        "annotations": [{"id": number, **one} for number, one in enumerate(objects, 1)],
        "info": {},
    }
    with redirect_stdout(io.StringIO()):  # it prints as it goes
        data.createIndex()
        judge = COCOeval(data, data.loadRes(guesses), "bbox") if guesses else None
        if judge is not None:
            judge.evaluate()
            judge.accumulate()

    def mean(precision: Any) -> float:
        """Over what there is: -1 stands for classes that no image has."""
        there = precision[precision > -1]
        return float(there.mean()) if there.size else 0.0

    if judge is None:
        every = dict.fromkeys(("map", "map50", "map75", *(f"map {label}" for label in labels)), 0.0)
    else:
        table = judge.eval["precision"][..., 0, -1]  # (overlaps, recalls, classes), all areas, 100 predictions
        every = {"map": mean(table), "map50": mean(table[0]), "map75": mean(table[5])}
        every |= {f"map {label}": mean(table[..., number]) for number, label in enumerate(labels)}
    return Scores(every, {"map": f"pycocotools {version('pycocotools')}, 100 predictions an image"})
