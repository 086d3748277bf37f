"""The loss of a detector, image by image, so that a batch may be cut anyhow without changing its gradient.

The loss of Transformers' detectors divides by what the whole batch holds: the classes by the weights of their targets
(DETR, YOLOS) or by the number of boxes (focal losses), the boxes by their number. So it is taken image by image, and
each term is kept as a sum with its count:

    loss = Σ classes / Σ class weights + Σ boxes / max(Σ number of boxes, 1)

which is the base's own loss of all images together. Detectors whose loss is of another form run one image at a time,
and their loss is the mean over images.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoModelForObjectDetection
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from transformers.loss.loss_utils import LOSS_MAPPING

from graftune.tasks.images import same_shape

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Target = Mapping[str, Tensor]


@dataclass(frozen=True)
class Detections:
    """Predictions for a batch, (rows, queries, …), and the summed loss terms of each image, (rows, 2)."""

    logits: Tensor
    pred_boxes: Tensor
    losses: Tensor


class DetectionLoss:
    """The loss of the detectors of one config."""

    def __init__(self, config: Any) -> None:
        self.config = config
        model_class = AutoModelForObjectDetection._model_mapping[type(config)].__name__
        self.function = LOSS_MAPPING.get(model_class, ForObjectDetectionLoss)
        self.separable = self.function in (ForObjectDetectionLoss, DeformableDetrForObjectDetectionLoss)
        self._single = copy.copy(config)  # the loss of one layer at a time
        self._single.auxiliary_loss = False

    def counts(self, targets: Sequence[Target]) -> Tensor:
        """The counts of both terms for each image, float32 (rows, 2)."""
        boxes = torch.tensor([float(len(target["class_labels"])) for target in targets])
        if not self.separable:
            return torch.stack([torch.ones_like(boxes), torch.zeros_like(boxes)], -1)
        if self.function is not ForObjectDetectionLoss:
            return torch.stack([boxes, boxes], -1)
        queries = getattr(self.config, "num_queries", None) or self.config.num_detection_tokens
        matched = boxes.clamp(max=queries)
        return torch.stack([matched + self.config.eos_coefficient * (queries - matched), boxes], -1)

    def run(self, model: AdaptedModel, batch: Mapping[str, Any], adapter: str | None) -> Detections:
        """Run the base on the images of a batch, and take the loss of each."""
        with_labels = not self.separable or self.config.auxiliary_loss  # only then the base returns its layers
        found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for rows, pixels in same_shape(batch, masked="pixel_mask" in model.signature.parameters):
            for part in (rows,) if self.separable else [[row] for row in rows]:
                targets = [batch["labels"][row] for row in part]
                inputs = {name: value[[rows.index(row) for row in part]] for name, value in pixels.items()}
                outputs = model(**inputs, **({"labels": targets} if with_labels else {}), adapters=adapter)
                for place, row in enumerate(part):
                    losses = self._losses(outputs, place, targets[place])
                    found[row] = outputs.logits[place], outputs.pred_boxes[place], losses
        logits, boxes, losses = (torch.stack(each) for each in zip(*(found[row] for row in sorted(found)), strict=True))
        return Detections(logits, boxes, losses)

    def _losses(self, outputs: Any, place: int, target: Target) -> Tensor:
        """The summed terms (2,) of one image, over all layers that the base is trained on."""
        if not self.separable:
            return torch.stack([outputs.loss.float(), torch.zeros((), device=outputs.logits.device)])
        layers = [outputs, *(outputs.get("auxiliary_outputs") or ())]
        weight, boxes = self.counts([target])[0].tolist()
        classes, others = [], []
        for layer in layers:
            logits, edges = layer["logits"][place][None].float(), layer["pred_boxes"][place][None].float()
            total, terms, _ = self.function(logits, [target], logits.device, edges, self._single)
            classes.append(terms["loss_ce"])
            others.append(total - terms["loss_ce"])
        # The function has divided by the boxes of this image, at least 1.
        scale = weight if self.function is ForObjectDetectionLoss else max(boxes, 1.0)
        return torch.stack([sum(classes) * scale, sum(others) * max(boxes, 1.0)])
