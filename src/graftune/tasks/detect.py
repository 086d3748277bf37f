"""Detection: labels and boxes of the objects in an image. Carion et al. 2020 (DETR), Fang et al. 2021 (YOLOS)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.tasks import images, labels, metrics
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.detection_loss import DetectionLoss, Detections
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.labelled import Labelled

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Objects = Sequence[tuple[str, Sequence[float]]]


@dataclass(frozen=True)
class Detect(Labelled):
    """Input: an image; target: its objects, each a label and a box (left, top, right, bottom) in pixels.

    Trained with the base's own loss (a best matching of predictions and objects, then classes, boxes and their
    overlap), scored by COCO's mean average precision.
    """

    labels: tuple[str, ...] | None = None

    name: ClassVar[str] = "detect"
    metric: ClassVar[str] = "map"
    processor: ClassVar[str] = "AutoImageProcessor"
    columns: ClassVar[Columns] = Columns(
        ("image", "file", "file_name", "path", "input"),
        ("objects", "annotations", *values.BOXES, "target"),
        values.image,
        values.objects,
        beside=values.BOXES,
    )

    @property
    def expectation(self) -> str:
        return "boxes inside the image, with labels that the training rows have"

    def fit(self, rows: Sequence[Row]) -> Self:
        """Labels: those of all objects."""
        names = labels.labels_of((label for row in rows for label, _ in row.target), self.labels, least=1)
        return replace(self, labels=tuple(names))

    def problem(self, row: Row) -> str | None:
        """An unknown label, or a box that is empty or leaves the image."""
        width, height = images.size(row.input)
        for label, (left, top, right, bottom) in row.target:
            box = f"box ({left:g}, {top:g}, {right:g}, {bottom:g}) of {label!r}"
            if label not in self.known:
                return labels.unknown_label(label, self.known)
            if left >= right or top >= bottom:
                return f"{box} is empty"
            if left < 0 or top < 0 or right > width or bottom > height:
                return f"{box} is not inside the image of {width} x {height}"
        return None

    def head(self, config: Any) -> Head:
        return Head(self.name, "AutoModelForObjectDetection", labels=self.known, float32=True)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundDetect(self, config, processor)


class BoundDetect(BoundTask):
    """Detection on one base."""

    task: Detect

    def __init__(self, task: Detect, config: Any, processor: Any) -> None:
        super().__init__(task, config, processor)
        self.loss = DetectionLoss(config)

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """The image as its processor gives it; labels: numbers of classes and boxes (x, y, width, height), 0 to 1."""
        picture = images.fitting(row.input, self.config)
        pixels: Tensor = encoder.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        edges = torch.tensor([box for _, box in row.target], dtype=torch.float32).view(-1, 4)
        edges = edges / torch.tensor([picture.width, picture.height] * 2)
        boxes = torch.cat([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], -1)
        wanted = {"class_labels": self._numbers(row), "boxes": boxes}
        return [images.Picture([], wanted, pixels=pixels, patches=images.patches(pixels, self.config))]

    def _numbers(self, row: Row) -> Tensor:
        return torch.tensor([self.task.known.index(label) for label, _ in row.target]).long()

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`pixel_values`, float32 (rows, channels, height, width), and `labels`, a dictionary a row."""
        return images.stacked(features) | {"labels": [item.labels for item in features]}

    def outputs(self, model: AdaptedModel, batch: Batch, adapter: str | None) -> Detections:
        """The predictions, and the loss terms of each image by itself."""
        return self.loss.run(model, batch, adapter)

    def counts(self, batch: Batch) -> Tensor:
        """The weights of the classes and the boxes of each image, float32 (rows, 2)."""
        return self.loss.counts(batch["labels"])

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The base's loss of the classes and of the boxes, float32 (rows, 2); `smoothing` has no meaning here."""
        return outputs.losses

    def decode(self, outputs: Any, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Scores, labels and boxes (0 to 1) of all predictions for an image."""
        # Every prediction counts: the metric ranks them by their scores.
        found = self.processor.post_process_object_detection(outputs, threshold=0.0)
        return [(one["scores"].cpu(), one["labels"].cpu(), one["boxes"].cpu()) for one in found]

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """COCO's mAP over overlaps of 0.5 to 0.95, and mAP at 0.5 and 0.75, from 0 to 1."""
        guessed, truth = [], []
        for row, ((scores, guesses, boxes),) in zip(rows, answers, strict=True):
            guessed.append((scores, guesses, boxes * torch.tensor(images.size(row.input) * 2)))
            wanted = torch.tensor([box for _, box in row.target], dtype=torch.float32).view(-1, 4)
            truth.append((self._numbers(row), wanted))
        figures = metrics.detection(guessed, truth, self.task.known)
        predictions = [
            {
                "line": row.line,
                "input": self.display(row),
                "target": _listed(row.target),
                "prediction": _listed(sure := _sure(own, self.task.known)),
                "shown": {"target": _counted(row.target), "prediction": _counted(sure)},
            }
            for row, own in zip(rows, guessed, strict=True)
        ]
        return Evaluation(figures.values, predictions, figures.notes)

    def display(self, row: Row) -> str:
        return images.shown(row.input)

    def dummy_target(self, row: Row) -> Any:
        return ()


def _sure(found: tuple[Tensor, Tensor, Tensor], known: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Label and box of the predictions that are likelier than not."""
    scores, guesses, boxes = found
    chosen = (scores > 0.5).nonzero()[:, 0].tolist()
    return [(known[int(guesses[i])], boxes[i].tolist()) for i in chosen]


def _counted(objects: Objects) -> str:
    """How many objects of each label: what a report has room for."""
    counts = Counter(label for label, _ in objects)
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing"


def _listed(objects: Objects) -> str:
    return "; ".join(f"{label} {' '.join(f'{edge:.0f}' for edge in box)}" for label, box in objects)
