"""Detection: labels and boxes of the objects in an image. Carion et al. 2020 (DETR), Fang et al. 2021 (YOLOS)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.tasks import images, labels, metrics
from graftune.tasks.features import Features, Reading
from graftune.tasks.task import Evaluation, Task


@dataclass
class Detect(Task):
    """Input: an image; target: its objects, each a label and a box (left, top, right, bottom) in pixels.

    Trained with the base's own loss (a best matching of predictions and objects, then classes, boxes and their
    overlap), scored by COCO's mean average precision.
    """

    labels: tuple[str, ...] = field(default=(), init=False)

    _config: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "detect"
    metric: ClassVar[str] = "map"
    processor: ClassVar[str] = "AutoImageProcessor"
    float32: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("labels",)
    columns: ClassVar[Columns] = Columns(
        ("image", "file", "file_name", "path", "input"),
        ("objects", "annotations", "boxes", "target"),
        values.image,
        values.objects,
    )

    def auto_class(self, config: Any) -> str:
        return "AutoModelForObjectDetection"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Raises GraftuneError for a base without heads of its own."""
        known = ("class_labels_classifier", "bbox_predictor", "class_embed", "bbox_embed")
        found = tuple(name for name, _ in base.named_children() if name in known)
        return found or labels.heads(base, self.auto_class(base.config))

    def prepare(self, rows: Sequence[Row]) -> None:
        """The labels are those of all objects."""
        self.labels = labels.found((label for row in rows for label, _ in row.target), least=1)

    def bind(self, config: Any, processor: Any) -> None:
        """How many channels and patches an image has, and how boxes are read off."""
        self._config, self._processor = config, processor

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """Rows with an unknown label, or a box that is empty or leaves the image."""
        known = self.known()
        wrong: dict[int, str] = {}
        for row in rows:
            width, height = images.size(row.input)
            for label, (left, top, right, bottom) in row.target:
                box = f"box ({left:g}, {top:g}, {right:g}, {bottom:g}) of {label!r}"
                if label not in known:
                    wrong[row.line] = labels.unknown(label, known)
                elif left >= right or top >= bottom:
                    wrong[row.line] = f"{box} is empty"
                elif left < 0 or top < 0 or right > width or bottom > height:
                    wrong[row.line] = f"{box} is not inside the image of {width} x {height}"
        return wrong

    @property
    def good_row(self) -> str:
        return "boxes inside the image, with labels that the training rows have"

    def blank(self, input: Any) -> Any:
        return ()

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        return labels.arguments(self.known())

    def encode(self, row: Row, reading: Reading) -> Features:
        """The image as its processor gives it; labels: numbers of classes and boxes (x, y, width, height), 0 to 1."""
        picture = images.fitting(row.input, self._config)
        pixels: Tensor = reading.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        known = self.known()
        edges = torch.tensor([box for _, box in row.target], dtype=torch.float32).view(-1, 4)
        edges = edges / torch.tensor([picture.width, picture.height] * 2)
        boxes = torch.cat([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], -1)
        wanted = {"class_labels": torch.tensor([known.index(label) for label, _ in row.target]).long(), "boxes": boxes}
        return images.Picture([], wanted, pixels=pixels, patches=images.patches(pixels, self._config))

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Any]:
        """`pixel_values`, float32 (rows, channels, height, width), and `labels`, a dictionary a row."""
        return images.stacked(features) | {"labels": [item.labels for item in features]}

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """All of the batch: the base itself matches predictions and objects."""
        return batch

    def targets(self, batch: dict[str, Any]) -> int:
        """As many as images."""
        return len(batch["labels"])

    def loss(self, outputs: Any, batch: dict[str, Any], smoothing: float = 0.0) -> Tensor:
        """The base's loss for the batch; `smoothing` has no meaning here."""
        return outputs.loss.float()

    def read(self, outputs: Any, batch: dict[str, Any]) -> list[tuple[Tensor, Tensor, Tensor, float]]:
        """Scores, labels and boxes (0 to 1) of all predictions for an image, and the mean loss of its batch."""
        # Every prediction counts: the metric ranks them by their scores.
        found = self._processor.post_process_object_detection(outputs, threshold=0.0)
        loss = outputs.loss.item()
        return [(one["scores"].cpu(), one["labels"].cpu(), one["boxes"].cpu(), loss) for one in found]

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """COCO's mAP over overlaps of 0.5 to 0.95, mAP at 0.5 and 0.75 (0 to 1), and the mean loss over images."""
        known = self.known()
        guessed, truth = [], []
        for row, ((scores, guesses, boxes, _),) in zip(rows, found, strict=True):
            guessed.append((scores, guesses, boxes * torch.tensor(images.size(row.input) * 2)))
            wanted = torch.tensor([known.index(label) for label, _ in row.target]).long()
            truth.append((wanted, torch.tensor([box for _, box in row.target], dtype=torch.float32).view(-1, 4)))
        figures, notes = metrics.detection(guessed, truth, known)
        figures["loss"] = sum(loss for ((_, _, _, loss),) in found) / len(rows)
        predictions = [
            {
                "line": row.line,
                "input": self.shown(row),
                "target": _listed(row.target),
                "prediction": _listed(sure := _sure(own, known)),
                "shown": {"target": _counted(row.target), "prediction": _counted(sure)},
            }
            for row, own in zip(rows, guessed, strict=True)
        ]
        return Evaluation(figures, predictions, notes)

    def shown(self, row: Row) -> str:
        return images.shown(row.input)

    def known(self) -> tuple[str, ...]:
        """The labels. Raises GraftuneError before `prepare`."""
        return labels.known(self.labels, type(self).__name__)


def _sure(found: tuple[Tensor, Tensor, Tensor], known: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Label and box of the predictions that are likelier than not."""
    scores, guesses, boxes = found
    chosen = (scores > 0.5).nonzero()[:, 0].tolist()
    return [(known[int(guesses[i])], boxes[i].tolist()) for i in chosen]


def _counted(objects: Sequence[tuple[str, Sequence[float]]]) -> str:
    """How many objects of each label: what a report has room for."""
    counts = Counter(label for label, _ in objects)
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing"


def _listed(objects: Sequence[tuple[str, Sequence[float]]]) -> str:
    return "; ".join(f"{label} {' '.join(f'{edge:.0f}' for edge in box)}" for label, box in objects)
